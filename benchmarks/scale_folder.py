"""Make the run folder that bench_scale.py measures: a generated input, and what fetch, score, encode and t5 leave.

Everything else (select, exact and near duplicates, decide, plans, pack, manifests) is done by the steps themselves, so
the folder is a run like any other: its records lie under the keys that the steps ask for.
"""

import io
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.checksums import sha256_file
from manifests.files import FORMAT, canonical_json, write_json
from manifests.journal import FileRecord, ShardRecord, records_of
from manifests.schema import DIGESTS, SCORES
from manifests.shards import write_shard
from manifests.tables import ATTEMPTS, ENCODED, FEATURES
from pipeline.execution.reuse import MADE_BY
from pipeline.execution.step import Step, Unit
from pipeline.recipes.rules import scored_columns

LIVE = 0.75
"""Share of planned URLs that give a picture."""
TWINS = 0.1
"""Share of pictures that have an earlier one within a few bits."""
IN_TAR = 20
"""Pictures that are really in a shard's tar: bytes of pictures are bench_verify's business."""
WIDTH, TOKENS = 8, 10
"""Width of a stored T5 feature (flan-t5-xl's is 2048: its bytes are a multiple), and how many a caption has."""
FILE_ROWS = 1_000_000
WORDS = "the of with red blue old new photo house garden woman dog cat mountain river city street light modern"
RECIPE = """[input]
files = "{folder}/input/*.parquet"
[output]
root = "{folder}/run"
[fetch]
user_agent = "tessera-bench/1 (+mailto:nobody@example.org)"
shard_rows = {shard_rows}
[filter]
rules = [{{ use = "size", min_side = 256 }}, {{ use = "aspect", max = 3.0 }}, {{ use = "watermark", max = 0.8 }},
    {{ use = "nsfw", max = 0.5 }}, {{ use = "similarity", min = 0.28, column = "similarity" }}]
[score]
use = ["aesthetic_v2"]
clip = {{ weights = "stand-in" }}
aesthetic_v2 = {{ weights = "stand-in" }}
[tier.pretrain]
size = 256
rules = [{{ use = "aesthetic", min = 5.7, model = "v2" }}]
[tier.finetune]
size = 512
rules = [{{ use = "size", min_side = 512 }}, {{ use = "aesthetic", min = 6.2, model = "v2" }}]
[pretokenize]
weights = "stand-in"
shard_rows = {packed_rows}
t5 = "precomputed"
t5_weights = "{folder}/t5"
"""


def prepare(folder: Path, rows: int, shard_rows: int, packed_rows: int) -> None:
    """Write the input, a T5's folder and the recipe; one row in thirty is an exact duplicate of another."""
    (folder / "input").mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, rows, FILE_ROWS)):
        path = folder / "input" / f"part-{number:05d}.parquet"
        if not path.exists():
            _input_file(path, first, min(rows, first + FILE_ROWS))
    _text_encoder(folder / "t5")
    recipe = RECIPE.format(folder=folder, shard_rows=shard_rows, packed_rows=packed_rows)
    (folder / "recipe.toml").write_text(recipe)


def _text_encoder(folder: Path) -> None:
    """Write a T5 without parameters, to whose tokenizer every caption is TOKENS long."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2}, unk_token="<unk>"))
    words.normalizer = normalizers.Replace(Regex(r"^[\s\S]*$"), " ".join("a" * (TOKENS - 1)))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"d_model": WIDTH, "model_type": "t5"}))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")


def _input_file(path: Path, first: int, last: int) -> None:
    """Write rows first..last of LAION-COCO's columns, drawn from their numbers."""
    temporary = path.with_suffix(".tmp")
    with duckdb.connect(config={"threads": 2}) as connection:
        words = f"string_split('{WORDS}', ' ')"
        drawn = f"lambda k: ({words})[1 + (hash(n * 100 + k) % len({words}))::INT]"
        phrase = f"array_to_string(list_transform(range(1 + (hash(n) % 7)::INT), {drawn}), ' ')"
        connection.execute(f"CREATE TABLE phrases AS SELECT n AS i, {phrase} AS said FROM range(4096) t(n)")
        connection.execute(f"""
            COPY (
                SELECT 'https://img' || (h % 9973) || '.shop.test/uploads/' || hex(h) || '.jpg' AS URL,
                       if(h % 101 = 0, NULL, a.said || ' ' || b.said) AS TEXT, b.said AS top_caption,
                       (100 + (h >> 5) % 1500)::DOUBLE AS WIDTH, (100 + (h >> 15) % 1500)::DOUBLE AS HEIGHT,
                       0.260005 + ((h >> 3) % 10000) / 50000.0 AS similarity,
                       (((h >> 7) % 10000) / 10000.0)::FLOAT AS pwatermark,
                       pow(((h >> 9) % 10000) / 10000.0, 6) AS punsafe
                FROM (SELECT (hash(CASE WHEN n % 31 = 5 THEN n // 2 ELSE n END) >> 2)::UBIGINT AS h
                      FROM range({first}, {last}) t(n))
                JOIN phrases a ON a.i = (h >> 10) & 4095 JOIN phrases b ON b.i = (h >> 22) & 4095
            ) TO '{temporary}' (FORMAT parquet, COMPRESSION zstd)""")
    temporary.rename(path)


def put(path: Path, table: pa.Table, rows: int = 65_536, **facts: str) -> None:
    """Write a table as the steps do, but without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table.replace_schema_metadata({"tessera_format": str(FORMAT), **facts})
    pq.write_table(table, path, compression="zstd", row_group_size=rows)


def binary(raw: np.ndarray) -> pa.Array:
    """Return (n, width) bytes as a fixed-size binary column."""
    flat = np.ascontiguousarray(raw, np.uint8)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(raw.shape[1]), len(raw), [None, pa.py_buffer(flat)])


def raw_uids(column: pa.ChunkedArray) -> np.ndarray:
    """Return uids as (n, 16) uint8."""
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, 16)


def draws(uids: np.ndarray) -> np.ndarray:
    """Return a well mixed number per uid, the same in every process."""
    mixed = np.ascontiguousarray(uids).view("<u8").reshape(-1, 2)
    found = mixed[:, 0] ^ (mixed[:, 1] >> np.uint64(7))
    for factor in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9):
        found = (found ^ (found >> np.uint64(29))) * np.uint64(factor)
    return found ^ (found >> np.uint64(32))


@cache
def picture() -> bytes:
    """Return a JPEG of 16 x 16 pixels."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 120, 40)).save(file, "JPEG")
    return file.getvalue()


def _mixed(numbers: np.ndarray) -> np.ndarray:
    return draws(np.stack([numbers, numbers], axis=1).astype("<u8").view(np.uint8))


def fetched(step: Step, unit: Unit) -> ShardRecord:
    """Write a shard of pairs, its table, statistics and attempts: three URLs in four live."""
    root, name = step.root, unit.name
    plan = pq.read_table(root / unit.reads["plan"])
    rows, uids = plan.num_rows, raw_uids(plan["uid"])
    drawn = draws(uids)
    live = drawn % np.uint64(100) < np.uint64(LIVE * 100)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    hexed = np.stack([digits[uids >> 4], digits[uids & 15]], axis=2).reshape(rows, 32)
    key = binary(hexed).cast(pa.binary()).cast(pa.string())
    sides = {
        side: pa.array((200 + (drawn >> np.uint64(shift)) % np.uint64(1848)).astype(np.int32), mask=~live)
        for side, shift in (("width", 11), ("height", 23))
    }
    nothing = pa.nulls(rows, pa.string())
    reason = pa.array(np.where(live, "", "http_404"), mask=live)
    status = pa.array(np.where(live, "success", "failed_to_download"))
    table = {"key": key, "url": plan["url"], "caption": plan["text"], "status": status, "error_message": reason}
    table |= {**sides, **{f"original_{side}": values for side, values in sides.items()}}
    table |= dict.fromkeys(("sha256", *DIGESTS), nothing)
    table |= {column: plan[column] for column in ("top_caption", *SCORES)}
    paths = [root / "pairs" / f"{name}{end}" for end in (".tar", ".parquet", "_stats.json")]
    paths.append(root / "ledger" / "fetch" / f"{name}.parquet")
    put(paths[1], pa.table(table))
    keys = [bytes(uid).hex() for uid in uids[live][:IN_TAR]]
    write_shard(paths[0], ((uid, {"jpg": picture(), "txt": b"words", "json": b"{}"}) for uid in sorted(keys)))
    dropped = int(rows - live.sum())
    write_json(paths[2], {"count": rows, "successes": rows - dropped, "status_dict": {"http_404": dropped}})
    ones = pa.array(np.ones(rows, np.int16))
    attempts = {"uid": plan["uid"], "attempt": ones, "last": pa.array(np.ones(rows, bool)), "reason": reason}
    attempts["http_status"] = pa.array(np.where(live, 200, 404).astype(np.int16))
    arrays = [attempts[f.name].cast(f.type) if f.name in attempts else pa.nulls(rows, f.type) for f in ATTEMPTS]
    put(paths[3], pa.table(arrays, schema=ATTEMPTS), **{MADE_BY: unit.reads.get("made_by", "")})
    lost = {"http_404": dropped} if dropped else {}
    return _record(step, unit, paths, rows, lost)


def scored(step: Step, unit: Unit, first: int) -> ShardRecord:
    """Write a shard of scores: a normal aesthetic score, pHashes of which a tenth has a twin anywhere before."""
    root = step.root
    attempts = pq.read_table(root / "ledger" / "fetch" / f"{unit.name}.parquet", columns=["uid", "reason"])
    uid = attempts.filter(pc.is_null(attempts["reason"]))["uid"].combine_chunks()
    rows = len(uid)
    rng = np.random.default_rng(first)
    place = np.arange(first, first + rows)
    twin = rng.random(rows) < TWINS
    of = np.where(twin, (place * rng.random(rows)).astype(np.int64), place)
    hashes = _mixed(of)
    for _ in range(4):
        hashes = np.where(twin, hashes ^ (np.uint64(1) << rng.integers(0, 64, rows, dtype=np.uint64)), hashes)
    values = {"uid": uid, "sha256": binary(rng.integers(0, 256, (rows, 32), dtype=np.uint8)), "phash": pa.array(hashes)}
    values |= {name: pa.array(rng.normal(5.2, 0.7, rows).astype(np.float32)) for name in scored_columns(step.recipe)}
    path = root / "scores" / f"{unit.name}.parquet"
    put(path, pa.table({**values, "reason": pa.nulls(rows, pa.string())}), **{MADE_BY: unit.reads.get("made_by", "")})
    return replace(_record(step, unit, [path], rows), read={"no_number": {}})


def encoded(step: Step, unit: Unit) -> ShardRecord:
    """Write a shard of random codes, in the packed order."""
    from manifests.uid import uid_hash
    from pipeline.steps.encode import AGREEMENT, FINGERPRINT, REPORT, ROW_GROUP_ROWS

    root, tier = step.root, unit.reads["tier"]
    uids = pq.read_table(root / unit.reads["plan"], columns=["uid"])["uid"].to_pylist()
    order = sorted((uid_hash(uid, step.recipe.pretokenize.seed), uid) for uid in uids)
    rows, size = len(order), step.recipe.tier[tier].size
    rng = np.random.default_rng(rows)
    codes = rng.integers(0, 16_384, rows * (size // 16) ** 2, dtype=np.uint16)
    each = (size // 16) ** 2
    crop = {"place": "center", "scale": 1.0, "scaled": [size, size], "box": [0, 0, size, size], "flip": False}
    values: dict[str, Any] = {
        "uid": pa.array([uid for _, uid in order], pa.binary(16)),
        "sha256": binary(rng.integers(0, 256, (rows, 32), dtype=np.uint8)),
        "draw": pa.array([draw for draw, _ in order], pa.uint64()),
        "size": pa.array(np.full(rows, size, np.int16)),
        "crop": pa.array(["center"] * rows),
        "n_crops": pa.array(np.ones(rows, np.int16)),
        "crops": pa.array([[crop]] * rows, ENCODED.field("crops").type),
        "codes": pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * each, pa.int32()), pa.array(codes)),
    }
    arrays = [values[f.name].cast(f.type) if f.name in values else pa.nulls(rows, f.type) for f in ENCODED]
    path = root / "codes" / "encoded" / f"{unit.name}.parquet"
    told = {AGREEMENT: {"share": 1.0}, REPORT: {"batch_size": 8}}
    facts = {name: canonical_json(value).decode() for name, value in told.items()}
    facts |= {MADE_BY: unit.reads.get("made_by", ""), FINGERPRINT: "ab" * 32}
    put(path, pa.table(arrays, schema=ENCODED), ROW_GROUP_ROWS, **facts)
    return _record(step, unit, [path], rows)


def featured(step: Step, unit: Unit) -> ShardRecord:
    """Write a shard of T5 features of TOKENS tokens each."""
    from pipeline.steps.t5 import ROW_GROUP_ROWS

    root = step.root
    plan = pq.read_table(root / unit.reads["plan"])
    rows = plan.num_rows
    there = [caption is not None for caption in plan["caption"].to_pylist()]
    features = [bytes(TOKENS * WIDTH * 2) if is_there else None for is_there in there]
    values = {name: plan[name] for name in ("uid", "draw") if name in plan.column_names}
    values["tokens"] = pa.array([TOKENS if is_there else None for is_there in there], pa.int16())
    values["features"] = pa.array(features, pa.binary())
    values["dtype"] = pa.array(["fp16" if is_there else None for is_there in there])
    values["reason"] = pa.array([None if is_there else "missing_value" for is_there in there], pa.string())
    arrays = [values[f.name].cast(f.type) if f.name in values else pa.nulls(rows, f.type) for f in FEATURES]
    path = root / "codes" / "t5" / f"{unit.name}.parquet"
    facts = {MADE_BY: unit.reads.get("made_by", ""), "width": str(WIDTH)}
    put(path, pa.table(arrays, schema=FEATURES), ROW_GROUP_ROWS, **facts)
    missing = there.count(False)
    return _record(step, unit, [path], rows, {"missing_value": missing} if missing else {})


def _record(step: Step, unit: Unit, paths: list[Path], rows: int, dropped: dict[str, int] | None = None) -> ShardRecord:
    files = tuple(
        FileRecord(path.relative_to(step.root).as_posix(), sha256_file(path), path.stat().st_size) for path in paths
    )
    lost = dropped or {}
    return ShardRecord(unit.name, unit.key, files, rows, rows - sum(lost.values()), lost)


FORGED: dict[str, Callable[..., ShardRecord]] = {"fetch": fetched, "score": scored, "encode": encoded, "t5": featured}
"""Steps that need a network or a model -> what stands in for a unit of theirs."""


def forge(step: Step, units: list[Unit]) -> int:
    """Do a step's units that are not done with made-up values; return how many were made."""
    made = rows = 0
    for unit in units:
        record = step.journal.done(unit.name, unit.key)
        if record is None:
            given = (rows,) if step.name == "score" else ()
            record = FORGED[step.name](step, unit, *given)
            step.journal.record(record)
            made += 1
        rows += record.rows_in
    return made


def counts(root: Path) -> dict[str, int]:
    """Return the rows of the run at each place: input, planned, fetched, kept, packed."""
    found = {}
    for name, step, what in (
        ("input", "select", "rows_in"),
        ("planned", "fetch", "rows_in"),
        ("fetched", "fetch", "rows_out"),
        ("kept", "decide", "rows_out"),
        ("packed", "encode", "rows_in"),
    ):
        found[name] = sum(getattr(record, what) for record in records_of(root, step))
    return found


def targets(root: Path) -> Iterator[str]:
    """Yield what `why` is asked: the uid of a kept row, its URL, the uid of a row that select dropped."""
    paths = sorted((root / "ledger" / "final").glob("*.parquet"))
    table = pq.read_table(paths[len(paths) // 2], columns=["uid", "url", "fate", "step"])
    kept = table.filter(pc.equal(table["fate"], "kept"))
    dropped = table.filter(pc.equal(table["step"], "select"))
    yield kept["uid"][0].as_py().hex()
    yield kept["url"][0].as_py()
    yield dropped["uid"][0].as_py().hex()
