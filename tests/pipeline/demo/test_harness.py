"""What a stage of the demo has around it: its data, its server while the stage runs, and the truth afterwards."""

import http.client
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.journal import FileRecord, Journal, ShardRecord
from pipeline.demo import harness
from pipeline.demo.data import DemoData, DemoError
from pipeline.execution.step import Runtime
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import Recipe, RecipeError

FINAL = pa.schema([("source", pa.string()), ("source_row", pa.int64()), ("fate", pa.string()), ("reason", pa.string())])
TRUTH = [
    {"source_row": 0, "kind": "clean", "target": None, "exact": False},
    {"source_row": 1, "kind": "http-404", "target": "http_404", "exact": True},
]


def recipe_of(root: Path, files: str | list[str] = "demo/input/*.parquet", dataset: str = "demo") -> Recipe:
    return parse_recipe(
        {
            "input": {"files": files, "dataset": dataset},
            "output": {"root": str(root)},
            "tier": {"pretrain": {"size": 16}},
        }
    )


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoData:
    """The demo's data, made by hand: one picture, two rows. It is found wherever it is looked for."""
    page = tmp_path / "www" / "met.demo.test" / "1.jpg"
    page.parent.mkdir(parents=True)
    page.write_bytes(b"a picture")
    base = {"source": "a.parquet", "text": None, "picture": "met/1", "group": None, "matched": None}
    rows = [{**base, "alpha": None, "tiled": None, **row} for row in TRUTH]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "truth.parquet")
    made = DemoData([], tmp_path / "www", ["met.demo.test", "refused.demo.test"], False, tmp_path / "truth.parquet")
    monkeypatch.setattr(harness, "prepare", lambda folder, emoji: made)
    return made


def write_final(root: Path, shard: str, *rows: tuple[int, str | None]) -> None:
    """Write a shard of the final ledger, and its record."""
    path = root / "ledger" / "final" / f"{shard}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [
        {"source": "input/a.parquet", "source_row": row, "fate": "dropped" if reason else "kept", "reason": reason}
        for row, reason in rows
    ]
    pq.write_table(pa.Table.from_pylist(values, FINAL), path)
    Journal(root, "decide").record(ShardRecord(shard, "k", (FileRecord.of(root, path),), len(rows), len(rows)))


def test_the_data_lies_beside_its_input_and_has_emoji_only_where_the_recipe_says_demo(tmp_path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(harness, "prepare", lambda folder, emoji: asked.append((folder, emoji)))
    harness.demo_data(recipe_of(tmp_path, str(tmp_path / "data" / "input" / "*.parquet")))
    harness.demo_data(recipe_of(tmp_path, str(tmp_path / "data" / "input" / "*.parquet"), "demo-artworks"))
    assert asked == [(tmp_path / "data", True), (tmp_path / "data", False)]


@pytest.mark.parametrize("files", ["data/*.parquet", ["data/input/a.parquet"]], ids=["another folder", "a list"])
def test_an_input_of_ones_own_is_refused(tmp_path, files) -> None:
    with pytest.raises(RecipeError, match=r"its own table, wanted FOLDER/input/\*\.parquet, got .*data/"):
        harness.demo_data(recipe_of(tmp_path, files))


def test_data_that_cannot_be_made_is_a_fault_of_the_recipe(tmp_path, monkeypatch) -> None:
    def prepare(folder: Path, emoji: bool) -> DemoData:
        raise DemoError(f"{folder} holds other things")

    monkeypatch.setattr(harness, "prepare", prepare)
    with pytest.raises(RecipeError, match="demo holds other things"):
        harness.demo_data(recipe_of(tmp_path))


def test_hosts_are_served_while_a_stage_fetches_and_no_longer(data, tmp_path) -> None:
    with harness.serving(recipe_of(tmp_path), ("filter", "caption")) as runtime:
        address = runtime.connect_to["met.demo.test"]
        connection = http.client.HTTPConnection(address, timeout=20)
        connection.request("GET", "/1.jpg", headers={"Host": "met.demo.test"})
        assert connection.getresponse().read() == b"a picture"
        connection.close()
    assert runtime.connect_to["refused.demo.test"] == "127.0.0.1:1"
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(address, timeout=20).request("GET", "/1.jpg")


def test_a_stage_that_does_not_fetch_needs_no_data(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(harness, "demo_data", lambda recipe: pytest.fail("the data was made"))
    with harness.serving(recipe_of(tmp_path), ("caption", "pretokenize")) as runtime:
        assert runtime == Runtime()


def test_the_final_ledger_is_all_shards_in_their_order(tmp_path) -> None:
    assert harness.final_table(tmp_path) is None
    write_final(tmp_path, "00001", (5, None))
    write_final(tmp_path, "00000", (0, "http_404"), (3, None))
    assert harness.final_table(tmp_path).column("source_row").to_pylist() == [0, 3, 5]


def test_the_truth_is_told_once_there_is_a_ledger(data, tmp_path, capsys) -> None:
    root = tmp_path / "run"
    harness.tell_truth(recipe_of(root))
    assert capsys.readouterr().err == ""
    assert not root.exists()
    write_final(root, "00000", (0, None), (1, "http_404"))
    harness.tell_truth(recipe_of(root))
    said = capsys.readouterr().err
    line = "planted faults with the reason that the design names: 1 of 1"
    assert line in said
    assert line in (root / "truth.txt").read_text()
    assert "CC0" in said
    assert (root / "ATTRIBUTION.md").read_text().startswith("# Pictures of the demo")
