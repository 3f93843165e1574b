"""Find every caption that a pair has: the input's texts and what captioners said."""

from collections.abc import Sequence
from pathlib import Path

from manifests.query import files_sql
from manifests.tables import SAID

TEXTS = [field.name for field in SAID.value_type]


def texts_of(tables: Sequence[Path], captions: Sequence[Path]) -> str:
    """Return SQL of (uid, url, text, top_caption, said) of the pairs in these tables of the fetch's plan; `said` holds
    the texts in these tables of one captioner, null without any."""
    planned = files_sql(tables)
    if not captions:
        return (
            f"(SELECT uid, url, text, top_caption, NULL::STRUCT({', '.join(f'{name} VARCHAR' for name in TEXTS)})[] AS"
            f" said FROM {planned})"
        )
    packed = ", ".join(f"'{name}': {name}" for name in TEXTS)
    said = f"(SELECT uid, list({{{packed}}}) AS said FROM {files_sql(captions)} WHERE reason IS NULL GROUP BY uid)"
    return f"(SELECT p.uid, p.url, p.text, p.top_caption, c.said FROM {planned} p LEFT JOIN {said} c USING (uid))"
