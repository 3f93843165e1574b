"""Find every caption that a pair has: the input's texts and what captioners said."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from manifests.query import files_sql
from manifests.tables import SAID

TEXTS = {field.name: "VARCHAR[]" if pa.types.is_list(field.type) else "VARCHAR" for field in SAID.value_type}
"""Field of what a captioner said -> its type in DuckDB."""


def texts_of(tables: Sequence[Path], captions: Sequence[Path], captioners: Sequence[str]) -> str:
    """Return SQL of (uid, url, text, top_caption, said) of the pairs in these tables of the fetch's plan; `said` holds
    the captions in these tables, in the order of their captioners, null without any. What a flag took is none."""
    planned = files_sql(tables)
    if not captions:
        types = ", ".join(f"{name} {kind}" for name, kind in TEXTS.items())
        return f"(SELECT uid, url, text, top_caption, NULL::STRUCT({types})[] AS said FROM {planned})"
    packed = ", ".join(f"'{name}': {name}" for name in TEXTS)
    names = ", ".join(f"'{name}'" for name in captioners)
    said = (
        f"(SELECT uid, list({{{packed}}} ORDER BY list_position([{names}], captioner)) AS said"
        f" FROM {files_sql(captions)} WHERE reason IS NULL AND caption IS NOT NULL GROUP BY uid)"
    )
    return f"(SELECT p.uid, p.url, p.text, p.top_caption, c.said FROM {planned} p LEFT JOIN {said} c USING (uid))"
