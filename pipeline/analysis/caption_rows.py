"""Read what a run holds of captions and of the texts beside them, in pieces of an even size."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.survivors import halves
from manifests.files import FormatError, finished, open_table, read_present, rows_of
from manifests.plans import planned_tables
from manifests.reasons import group_of

PIECE_ROWS, PIECE_BYTES = 20_000, 64_000_000
"""Rows of a piece, and letters of its captions, where that is sooner reached."""
ROWS = pa.schema(
    [
        pa.field("uid", pa.binary(16)),
        pa.field("caption", pa.string()),
        pa.field("text", pa.string()),
        pa.field("top_caption", pa.string()),
        pa.field("phash", pa.uint64()),
        pa.field("place", pa.int64(), metadata={"says": "number of the table << 32 | row in it"}),
    ]
)
LEDGER = pa.schema(
    [
        pa.field("uid", pa.binary(16)),
        pa.field("text", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("aesthetic", pa.float32()),
    ]
)
TAKEN_OVER = ("top_caption", "alt")
"""Origins of captions that are the input's own words."""
JUDGED = ("near_duplicate", "placeholder", "in_eval_set")
"""Reasons of rows whose picture was there for the rules to judge, beside the rules themselves."""
AESTHETIC = ("aesthetic_v2", "aesthetic_v1")
"""Scores that are looked at, the first that a run has; their scales differ."""


@dataclass
class Counted:
    """What became of the rows of a captioner: how many there are, `origins` of captions that stand, `dropped` by
    reason, and flags."""

    rows: int = 0
    origins: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)


def caption_tables(root: Path) -> dict[str, list[Path]]:
    """Return captioner -> its tables, in order."""
    found: dict[str, list[Path]] = {}
    for path in finished(root / "captions", "*-*.parquet"):
        found.setdefault(path.stem.rpartition("-")[0], []).append(path)
    return found


def first_tables(paths: Iterable[Path], most_rows: int | None) -> list[Path]:
    """Return the first of these tables that hold so many rows, at least one; all where nothing is said."""
    chosen, rows = list[Path](), 0
    for path in paths:
        if most_rows is not None and rows >= most_rows:
            break
        chosen.append(path)
        rows += rows_of(path) if most_rows is not None else 0
    return chosen


def caption_pieces(root: Path, paths: Iterable[Path], counted: Counted, *, texts: bool = True) -> Iterator[pa.Table]:
    """Yield the captions that are the captioner's own words (schema ROWS), with the pHash of their pictures and, with
    `texts`, their other texts; count all rows on the way. Raises FormatError, OSError."""
    plans = {path.stem: path for path in planned_tables(root, "fetch")} if texts else {}
    yield from _pieces(_rows(root, number, path, plans, counted) for number, path in enumerate(paths))


def _pieces(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    held, rows, size = list[pa.Table](), 0, 0
    for table in tables:
        held.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= PIECE_ROWS or size >= PIECE_BYTES:
            whole = pa.concat_tables(held)
            each = max(1, min(PIECE_ROWS, whole.num_rows * PIECE_BYTES // max(whole.nbytes, 1)))
            full = whole.num_rows // each * each
            yield from (whole.slice(start, each).combine_chunks() for start in range(0, full, each))
            held = [whole.slice(full)]
            rows, size = held[0].num_rows, held[0].nbytes
    if rows:
        yield pa.concat_tables(held).combine_chunks()


def _rows(root: Path, number: int, path: Path, plans: dict[str, Path], counted: Counted) -> pa.Table:
    """Return the captions of one table that are the captioner's own words."""
    table = read_present(path, ["uid", "caption", "flags", "origin", "reason"])
    _count(table, counted)
    places = pa.array(range(number << 32, (number << 32) + table.num_rows), pa.int64())
    own = pc.is_valid(table["caption"])
    if "origin" in table.column_names:
        own = pc.and_(own, pc.invert(pc.is_in(table["origin"], value_set=pa.array(TAKEN_OVER))))
    said = table.select(["uid", "caption"]).append_column("place", places).filter(own)
    shard = path.stem.rpartition("-")[2]
    texts = _beside(said["uid"], plans.get(shard), ["text", "top_caption"])
    scores = _beside(said["uid"], root / "scores" / f"{shard}.parquet", ["phash"])
    columns = {**{name: said[name] for name in said.column_names}, **texts, **scores}
    return pa.table([columns[one.name].cast(one.type) for one in ROWS], schema=ROWS)


def _count(table: pa.Table, counted: Counted) -> None:
    counted.rows += table.num_rows
    stands = table.filter(pc.is_valid(table["caption"]))
    origin = stands["origin"] if "origin" in table.column_names else pa.array(["attempt_1"] * stands.num_rows)
    for counts, column in (
        (counted.origins, origin),
        (counted.dropped, table["reason"].drop_null()),
        (
            counted.flags,
            pc.list_flatten(table["flags"]) if "flags" in table.column_names else pa.array([], pa.string()),
        ),
    ):
        counts.update({one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()})


def _beside(uids: pa.ChunkedArray, path: Path | None, columns: list[str]) -> dict[str, pa.Array]:
    """Return these columns of another table of the shard, by uid; null where it has none."""
    missing = {name: pa.nulls(len(uids), ROWS.field(name).type) for name in columns}
    if path is None or not path.is_file():
        return missing
    table = read_present(path, ["uid", *columns])
    place = pc.index_in(uids, value_set=table["uid"]).combine_chunks()
    found = {name: table[name].combine_chunks().take(place) for name in columns if name in table.column_names}
    return missing | found


def caption_at(paths: list[Path], place: int) -> tuple[bytes, str]:
    """Return (uid, caption) at a place that `caption_pieces` gave."""
    row = read_present(paths[place >> 32], ["uid", "caption"]).slice(place & 0xFFFF_FFFF, 1).to_pylist()[0]
    return row["uid"], row["caption"]


def picture_keys(table: pa.Table) -> pa.Array:
    """Return the pHash of each row; where there is none the first half of its uid stands for it."""
    uids = halves(table["uid"].combine_chunks())[:, 0]
    return pc.coalesce(table["phash"].combine_chunks(), pa.array(np.ascontiguousarray(uids)))


def ledger_pieces(root: Path, most_rows: int | None, column: str) -> Iterator[pa.Table]:
    """Yield the rows of the ledger whose alt text is known (schema LEDGER); `column`: the score that stands in
    `aesthetic`. Raises FormatError, OSError."""
    finals = first_tables(finished(root / "ledger" / "final", "*.parquet"), most_rows)
    yield from _pieces(_ledger(root / "ledger" / "select" / path.name, path, column) for path in finals)


def _ledger(selected: Path, final: Path, column: str) -> pa.Table:
    texts, rows = read_present(selected, ["text"]), read_present(final, ["uid", "reason", column])
    if texts.num_rows != rows.num_rows:
        raise FormatError(f"{final}: {rows.num_rows:,} rows beside the {texts.num_rows:,} of {selected}")
    text = texts["text"] if texts.column_names else pa.nulls(rows.num_rows, pa.string())
    score = rows[column] if column in rows.column_names else pa.nulls(rows.num_rows, pa.float32())
    table = pa.table([rows["uid"], text, rows["reason"], score.cast(pa.float32())], schema=LEDGER)
    return table.filter(pc.is_valid(table["text"]))


def aesthetic_column(root: Path) -> str:
    """Return which score the ledger of a run has: the first of AESTHETIC with a value in one of its tables."""
    finals = finished(root / "ledger" / "final", "*.parquet")
    return next((column for column in AESTHETIC for path in finals if _has_value(path, column)), AESTHETIC[0])


def _has_value(path: Path, column: str) -> bool:
    """Tell from the footer of a table alone whether a column holds anything."""
    with open_table(path) as file:
        if column not in file.schema_arrow.names:
            return False
        footer = file.metadata
        names = [footer.schema.column(number).path for number in range(footer.num_columns)]
        place = names.index(column)
        groups = [footer.row_group(number).column(place) for number in range(footer.num_row_groups)]
    return any(one.statistics is None or one.statistics.null_count < one.num_values for one in groups)


def had_picture(reasons: pa.Array) -> pa.Array:
    """Tell which rows had a picture for the rules to judge: the kept ones, and those that a rule or a twin dropped."""
    names = [name for name in reasons.unique().to_pylist() if name is not None]
    judged = [name for name in names if name in JUDGED or group_of(name) == "rules"]
    return pc.or_(pc.is_null(reasons), pc.is_in(reasons, value_set=pa.array(judged, pa.string())))
