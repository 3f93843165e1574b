"""A run folder in which only select has ended, its ledger told by number of the uid and reason."""

from pathlib import Path

from manifests.tables import SELECTED
from manifests.tombstones import TABLE, write_tombstones
from pipeline.inputs.files import InputFile
from pipeline.inputs.input_list import register_files
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import Recipe
from tests.support.records import put_table, uid


def recipe_of(shard_rows: int) -> Recipe:
    """Return a recipe that fetches so many rows a shard."""
    return parse_recipe({"fetch": {"shard_rows": shard_rows}, "tier": {"a": {"size": 160}}})


def put_selected(root: Path, source: str, *rows: tuple[int, str | None]) -> None:
    """Put select's ledger of a file of the input: rows are (number of the uid, reason)."""
    table = [
        {"uid": uid(n), "source": source, "source_row": row, "url": f"http://x.test/{n}", "text": "t", "reason": reason}
        for row, (n, reason) in enumerate(rows)
    ]
    put_table(root, "select", f"ledger/select/{source}.parquet", table, SELECTED)


def add_files(root: Path, *names: str) -> None:
    """Register files of the input; those that were not there are a batch of their own."""
    register_files(root, [InputFile(f"{name}.parquet", name, 1, name) for name in names])


def leave_gap(root: Path, source: str, source_row: int, number: int) -> None:
    """Put a tombstone of a row that was fetched."""
    row = {"kind": "uid", "value_sha256": "0", "uid": uid(number), "source": source, "source_row": source_row}
    write_tombstones(root, [{**dict.fromkeys(TABLE.names), "won": False, "promote": False, "shard": "00000", **row}])
