"""Tables made of what is none: once for the same bytes, in the run folder, without removed rows."""

import gzip
import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.journal import Journal, ShardRecord
from manifests.shards import write_shard
from manifests.tombstones import write_tombstones
from pipeline.inputs import convert as module
from pipeline.inputs.convert import with_tables
from pipeline.inputs.files import look_at_inputs
from pipeline.inputs.input_list import register_files
from pipeline.inputs.parquet import RowGroups
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import RecipeError


def recipe(dataset, files, root, **more):
    given = {"dataset": dataset, "files": str(files), **more}
    return parse_recipe({"input": given, "output": {"root": str(root)}, "tier": {"a": {"size": 64}}})


def converted(recipe_):
    """Return the one input file with its table, and what stands in the table."""
    (file,) = with_tables(recipe_, look_at_inputs(recipe_))
    return file, pq.read_table(file.url).to_pydict()


def test_a_table_is_made_once_and_again_for_other_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image_path": "1.jpg", "text": "x"}\n')
    made = recipe("jsonl", str(tmp_path / "a.jsonl"), tmp_path / "run")
    (first,) = with_tables(made, look_at_inputs(made))
    (again,) = with_tables(made, look_at_inputs(made))
    assert first.url == again.url
    with RowGroups(first.url) as table:
        assert table.rows == (1,)
    register_files(made.root, [first])
    (tmp_path / "a.jsonl").write_text('{"image_path": "2.jpg", "text": "x"}\n')
    with pytest.raises(RecipeError, match="made from another input"):
        register_files(made.root, with_tables(made, look_at_inputs(made)))


def test_lines_become_rows_in_their_order_with_their_faults(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"image_path": "1.jpg", "text": ["x", "y"]}\nno line\n{"image_path": "../2.jpg", "text": "z"}\n'
    )
    file, columns = converted(recipe("jsonl", tmp_path / "a.jsonl", tmp_path / "run"))
    assert columns["image_path"] == ["1.jpg", None, "../2.jpg"]
    assert columns["text"] == ["x", None, "z"]
    assert columns["tessera_fault"] == [None, "broken_line", "blocked_path"]
    assert (file.name, file.raw, file.groups, file.fault) == ("a.jsonl", "", (3,), "")
    assert file.made[0].startswith("manifests/input/")
    assert file.made[2] == (tmp_path / "run" / file.made[0]).stat().st_size


def test_row_groups_hold_so_many_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP_ROWS", 2)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"image_path": "{n}.jpg", "text": "x"}}\n' for n in range(5)))
    file, columns = converted(recipe("jsonl", tmp_path / "a.jsonl", tmp_path / "run"))
    assert (file.groups, columns["image_path"]) == ((2, 2, 1), [f"{n}.jpg" for n in range(5)])


def test_pictures_that_all_lie_elsewhere_are_a_fault_of_the_recipe(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"image_path": "/far/1.jpg", "text": "x"}\nno line\n')
    with pytest.raises(RecipeError, match=r"every picture of a\.jsonl lies outside .* the first is '/far/1\.jpg'"):
        converted(recipe("jsonl", tmp_path / "a.jsonl", tmp_path / "run"))
    assert list((tmp_path / "run").rglob("*.parquet")) == []


def test_a_tar_becomes_a_table_and_a_damaged_one_a_fault(tmp_path):
    write_shard(tmp_path / "0.tar", [("k0", {"jpg": b"j", "txt": b"words"})])
    made = recipe("img2dataset", tmp_path / "0.tar", tmp_path / "run")
    _, columns = converted(made)
    assert (columns["key"], columns["caption"], columns["url"]) == (["k0"], ["words"], ["0.tar/k0.jpg"])
    (tmp_path / "0.tar").write_bytes(b"\xff" * 1024)
    (broken,) = with_tables(made, look_at_inputs(made))
    assert (broken.raw, broken.groups, broken.fault) == ("", (), "not a readable tar: bad checksum")


def test_removed_rows_are_blank_from_the_start(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"image_path": "{n}.jpg", "text": "x"}}\n' for n in range(2)))
    write_tombstones(
        tmp_path / "run", [{"kind": "uid", "value_sha256": "00" * 32, "source": "a.jsonl", "source_row": 1}]
    )
    _, columns = converted(recipe("jsonl", tmp_path / "a.jsonl", tmp_path / "run"))
    assert columns["image_path"] == ["0.jpg", None]
    assert columns["tessera_fault"] == [None, "removed"]


def test_a_tar_whose_texts_stand_behind_all_pictures_has_its_captions(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("0.jpg", "1.jpg", "0.txt", "1.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    _, columns = converted(recipe("img2dataset", tmp_path / "0.tar", tmp_path / "run"))
    assert (columns["key"], columns["caption"]) == (["0", "1"], ["0.txt", "1.txt"])


def test_a_table_of_an_earlier_version_stays_and_another_one_is_refused(tmp_path):
    """What a run folder was made from is not read anew; where its table was lost and would come out otherwise (blank
    lines were rows), the run is not continued on other rows."""
    (tmp_path / "a.jsonl").write_text('{"image_path": "1.jpg", "text": "x"}\n\n')
    made = recipe("jsonl", tmp_path / "a.jsonl", tmp_path / "run")
    (file,) = register_files(made.root, with_tables(made, look_at_inputs(made)))
    old = pa.table({"image_path": ["1.jpg", None], "text": ["x", None], "tessera_fault": [None, "broken_line"]})
    pq.write_table(old, file.url)
    (file,) = register_files(made.root, with_tables(made, look_at_inputs(made)))
    assert file.groups == (2,)
    with RowGroups(file.url) as table:
        read = {"name": "a.jsonl", "groups": [0, 1], "columns": ["text"], "sha256": table.digest([0], ["text"])}
    Journal(made.root, "select").record(ShardRecord("00000", "key", (), 2, 1, {"broken_line": 1}, read))
    register_files(made.root, with_tables(made, look_at_inputs(made)))
    Path(file.url).unlink()
    with pytest.raises(RecipeError, match=r"a\.jsonl has other content now"):
        register_files(made.root, with_tables(made, look_at_inputs(made)))


def test_a_table_in_text_is_read_once_into_columns_of_texts(tmp_path, monkeypatch):
    """Units are row groups, as of any table; values are as written, a 64-bit hash too."""
    monkeypatch.setattr(module, "GROUP_ROWS", 2)
    (tmp_path / "a.csv").write_text("TEXT,URL,hash,WIDTH,more\na,u,-9223372036854775808,640.5,x\nbroken\n,w,2,,y\n")
    file, columns = converted(recipe("laion-coco", tmp_path / "a.csv", tmp_path / "run"))
    assert columns == {
        "URL": ["u", None, "w"],
        "TEXT": ["a", None, None],
        "WIDTH": ["640.5", None, None],
        "hash": ["-9223372036854775808", None, "2"],
        "tessera_fault": [None, "broken_line", None],
    }
    assert (file.name, file.raw, file.groups, file.fault) == ("a.csv", "", (2, 1), "")
    first = Path(file.url).stat().st_mtime_ns
    monkeypatch.setattr(module, "tables", lambda *_: pytest.fail("it is made once"))
    assert converted(recipe("laion-coco", tmp_path / "a.csv", tmp_path / "run"))[0].url == file.url
    assert Path(file.url).stat().st_mtime_ns == first


def test_lines_of_pictures_may_be_packed(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"image_path": "1.jpg", "text": "x"}\n\n'))
    file, columns = converted(recipe("jsonl", tmp_path, tmp_path / "run"))
    assert (file.name, columns["image_path"], columns["text"]) == ("a.jsonl.gz", ["1.jpg"], ["x"])


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_lines_of_pictures_in_any_unicode(tmp_path, coding):
    """In UTF-16 each was a broken line."""
    lines = '{"image_path": "1.jpg", "text": "猫"}\n{"image_path": "2.jpg", "text": " \ufeffx"}\n'
    (tmp_path / "a.jsonl").write_bytes(lines.encode(coding))
    file, columns = converted(recipe("jsonl", tmp_path, tmp_path / "run"))
    assert (file.fault, columns["image_path"], columns["text"]) == ("", ["1.jpg", "2.jpg"], ["猫", "x"])


def test_packed_lines_that_end_early_have_the_rows_before_and_one_that_says_so(tmp_path):
    lines = "".join(f'{{"image_path": "{n * n}.jpg", "text": "{n}"}}\n' for n in range(60_000)).encode()
    packed = gzip.compress(lines)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) * 3 // 4])
    _, columns = converted(recipe("jsonl", tmp_path, tmp_path / "run"))
    assert columns["image_path"][:2] == ["0.jpg", "1.jpg"]
    assert columns["tessera_fault"].count("broken_line") == 1
    assert columns["tessera_fault"][-1] == "broken_line"


@pytest.mark.parametrize(("dataset", "name"), [("laion-coco", "a.csv"), ("jsonl", "a.jsonl"), ("img2dataset", "a.tar")])
def test_a_file_that_is_taken_away_before_its_table_is_made_is_lost_alone(tmp_path, dataset, name):
    """It ended the run with a traceback."""
    if dataset == "img2dataset":
        write_shard(tmp_path / name, [("0", {"jpg": b"j"})])
    else:
        (tmp_path / name).write_text(
            '{"image_path": "1.jpg"}\n' if dataset == "jsonl" else "URL,TEXT\nhttp://a.test,x\n"
        )
    made = recipe(dataset, tmp_path / name, tmp_path / "run")
    files = look_at_inputs(made)
    (tmp_path / name).unlink()
    (file,) = with_tables(made, files)
    assert (file.raw, file.columns, file.fault.partition(":")[0]) == ("", (), "cannot be opened")
