"""Find every caption that a pair has: the input's texts and what captioners said."""

from pathlib import Path

import pyarrow as pa

from pipeline.plans import files_sql, plan_folder
from pipeline.steps import records_of

TEXTS = ("captioner", "caption", "short_caption", "model", "prompt")
SAID = pa.list_(pa.struct([pa.field(name, pa.string()) for name in TEXTS]))


def texts_sql(root: Path, captioner: str | None) -> str:
    """Return SQL of (uid, url, text, top_caption, said) of every fetched pair; `said` holds this captioner's texts, null without any."""
    planned = files_sql(sorted(plan_folder(root, "fetch").glob("*.parquet")))
    sidecars = [root / r.files[0].path for r in records_of(root, "caption") if captioner and r.shard.rpartition("-")[0] == captioner]
    if not sidecars:
        return (
            f"(SELECT uid, url, text, top_caption, NULL::STRUCT({', '.join(f'{name} VARCHAR' for name in TEXTS)})[] AS said FROM {planned})"
        )
    packed = ", ".join(f"'{name}': {name}" for name in TEXTS)
    said = f"(SELECT uid, list({{{packed}}}) AS said FROM {files_sql(sidecars)} WHERE reason IS NULL GROUP BY uid)"
    return f"(SELECT p.uid, p.url, p.text, p.top_caption, c.said FROM {planned} p LEFT JOIN {said} c USING (uid))"
