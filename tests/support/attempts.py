"""Write what captioners answered into a run folder, and run the steps behind it without any model."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.checksums import sha256_file
from manifests.files import write_table
from manifests.journal import Journal, records_of
from manifests.plans import note_plan, plan_folder
from manifests.schema import schema
from manifests.tables import ATTEMPTED
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Step
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import Recipe
from tests.support.records import put_table, uid

TEXTS = schema("uid", "text", "top_caption")
FINAL = pa.schema({"shard": pa.string(), "uid": pa.binary(16), "fate": pa.string(), "tiers": pa.list_(pa.string())})


def recipe_of(gate: Mapping[str, Any] | None = None, **caption: Any) -> Recipe:
    """Return a recipe whose tier `fine` is captioned by `llava`, with these values of [caption.gate] and [caption]."""
    values = {"llava": {"model": "stand-in"}, "gate": dict(gate or {}), **caption}
    return parse_recipe({"caption": values, "tier": {"fine": {"size": 16, "caption": "llava"}}})


def put_texts(root: Path, texts: Sequence[tuple[str | None, str | None]], shard: str = "00000") -> None:
    """Write the fetch's plan of one shard: (alt text, top_caption) of each picture, and that all are kept."""
    rows = [{"uid": uid(n), "text": alt, "top_caption": top} for n, (alt, top) in enumerate(texts)]
    folder = plan_folder(root, "fetch")
    write_table(folder / f"{shard}.parquet", pa.Table.from_pylist(rows, schema=TEXTS))
    note_plan(folder, {f"{shard}.parquet": sha256_file(folder / f"{shard}.parquet")})
    kept = [{"shard": shard, "uid": row["uid"], "fate": "kept", "tiers": ["fine"]} for row in rows]
    put_table(root, "decide", f"ledger/final/{shard}.parquet", kept, FINAL)
    put_table(root, "fetch", f"pairs/{shard}.parquet", [], schema("uid"))


def put_attempts(
    root: Path, said: Mapping[int, str | None], second: bool = False, name: str = "llava-00000", **other: Any
) -> None:
    """Write attempts: number of the picture -> words, None where it could not be described."""
    step, folder = ("recaption", "retries") if second else ("caption", "attempts")
    rows = [
        {
            "uid": uid(number),
            "sha256": bytes(32),
            "made_from": hashlib.sha256(bytes([number, second])).digest(),
            "captioner": name.rpartition("-")[0],
            "model": "words",
            "revision": "r",
            "prompt": "describe_v1",
            "prompt_sha256": bytes(32),
            "seed": int(second),
            "text": text,
            "tokens": 3,
            "at_limit": False,
            "reason": "not_an_image" if text is None else None,
            **other,
        }
        for number, text in said.items()
    ]
    put_table(root, step, f"captions/{folder}/{name}.parquet", rows, ATTEMPTED)


def do_step(step: Step) -> list[Any]:
    """Do all units of a step here, and return its records."""
    worker = step.open()
    units = step.units()
    for unit in units:
        step.journal.record(worker.run(unit, InFlight()))
    Journal(step.root, step.name).forget_others(unit.name for unit in units)
    return records_of(step.root, step.name)
