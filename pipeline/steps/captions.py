"""Find every caption that a pair has: the input's texts and what captioners said."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from manifests.journal import ShardRecord, records_of
from manifests.layout import is_of_before
from manifests.query import files_sql
from manifests.tables import SAID, SAID_BEFORE

TEXTS = {field.name: "VARCHAR[]" if pa.types.is_list(field.type) else "VARCHAR" for field in SAID.value_type}
"""Field of what a captioner said -> its type in DuckDB."""
BEFORE = [field.name for field in SAID_BEFORE.value_type]
"""Those of them that captions which were not judged have."""


def captions_of_before(root: Path) -> list[ShardRecord]:
    """Return the records of the tables in `captions/` of a run of before there was a step that judges, which the step
    `caption` wrote itself; none once captions were judged."""
    if records_of(root, "judge"):
        return []
    records = records_of(root, "caption")
    return [record for record in records if any(is_of_before("caption", file.path) for file in record.files)]


def texts_of(tables: Sequence[Path], captions: Sequence[Path], captioners: Sequence[str], judged: bool = True) -> str:
    """Return SQL of (uid, url, text, top_caption, said) of the pairs in these tables of the fetch's plan; `said` holds
    the captions in these tables, in the order of their captioners, null without any. What a flag took is none; captions
    that were not `judged` count as they are."""
    planned = files_sql(tables)
    if not captions:
        types = ", ".join(f"{name} {kind}" for name, kind in TEXTS.items())
        return f"(SELECT uid, url, text, top_caption, NULL::STRUCT({types})[] AS said FROM {planned})"
    there = TEXTS if judged else BEFORE
    packed = ", ".join(f"'{name}': {name if name in there else f'NULL::{kind}'}" for name, kind in TEXTS.items())
    names = ", ".join(f"'{name}'" for name in captioners)
    counts = "reason IS NULL AND caption IS NOT NULL" if judged else "reason IS NULL"
    said = (
        f"(SELECT uid, list({{{packed}}} ORDER BY list_position([{names}], captioner)) AS said"
        f" FROM {files_sql(captions)} WHERE {counts} GROUP BY uid)"
    )
    return f"(SELECT p.uid, p.url, p.text, p.top_caption, c.said FROM {planned} p LEFT JOIN {said} c USING (uid))"
