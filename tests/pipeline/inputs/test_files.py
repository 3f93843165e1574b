"""Data sets: what a file is by its first bytes, whose columns mean what, URLs of any file system."""

import gzip
import importlib.util
import io
import json
import os
import sys
import tarfile
import types

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.fetch.img2dataset import reason_of_download
from manifests.uid import uid_of
from pipeline.inputs.convert import with_tables
from pipeline.inputs.files import data_folder, find_files, kind_of, look_at_inputs
from pipeline.inputs.input_list import register_files
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.rules import input_columns
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.steps.fetch.local_images import OwnPictures
from pipeline.steps.select import Select
from tests.support.small_web import jpeg, picture

COYO = {
    "id": 1,
    "url": "http://a.test/1.jpg",
    "text": "two words",
    "width": 640,
    "height": 480,
    "image_phash": "0f0f",
    "clip_similarity_vitb32": 0.25,
    "clip_similarity_vitl14": 0.125,
    "nsfw_score_opennsfw_v2": 0.5,
    "watermark_score": 0.75,
    "aesthetic_score_laion_v2": 5.5,
}
DATACOMP = {
    "uid": "0" * 32,
    "url": "http://a.test/1.jpg",
    "text": "two words",
    "original_width": 640,
    "original_height": 480,
    "clip_b32_similarity_score": 0.25,
    "clip_l14_similarity_score": 0.125,
    "sha256": "00",
}


def recipe(dataset, files, root="run", **more):
    return parse_recipe(
        {
            "input": {"dataset": dataset, "files": files, **more},
            "output": {"root": str(root)},
            "tier": {"a": {"size": 64}},
        }
    )


def selected(recipe_):
    """Run select in this process; return its rows."""
    register_files(recipe_.root, with_tables(recipe_, look_at_inputs(recipe_)))
    step = Select(recipe_, recipe_.root)
    from pipeline.execution.in_flight import InFlight

    records = [step.open().run(unit, InFlight()) for unit in step.units()]
    return [row for record in records for row in pq.read_table(recipe_.root / record.files[0].path).to_pylist()]


@pytest.mark.parametrize(
    ("dataset", "row", "scores"),
    [
        ("coyo", COYO, {"similarity": 0.25, "aesthetic_v2": 5.5}),
        ("datacomp", DATACOMP, {"similarity": 0.25}),
    ],
)
def test_columns_of_the_same_meaning_are_taken_and_no_others(tmp_path, dataset, row, scores):
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "0.parquet")
    (got,) = selected(recipe(dataset, f"file://{tmp_path}/*.parquet", tmp_path / "run"))
    assert (got["url"], got["text"], got["width"], got["height"], got["reason"]) == (
        row["url"],
        row["text"],
        640,
        480,
        None,
    )
    taken = {name: got[name] for name in ("similarity", "pwatermark", "punsafe", "aesthetic_v1", "aesthetic_v2")}
    assert taken == {**dict.fromkeys(taken), **scores}


def test_a_plain_map_of_columns(tmp_path):
    pq.write_table(
        pa.table({"link": ["http://a.test/1.jpg"], "words": ["two words"], "w": ["640"]}), tmp_path / "0.parquet"
    )
    mapping = {"url": "link", "text": "words", "width": "w", "height": "h"}
    made = recipe("columns", str(tmp_path), tmp_path / "run", columns=mapping)
    assert input_columns(made) == mapping
    (got,) = selected(made)
    assert (got["url"], got["text"], got["width"], got["height"]) == ("http://a.test/1.jpg", "two words", 640, None)
    with pytest.raises(RecipeError, match=r"\[input.columns\] url"):
        recipe("columns", str(tmp_path), columns={"text": "words"})


def test_tables_and_pictures_of_any_file_system(tmp_path):
    memory = fsspec.filesystem("memory")
    buffer = io.BytesIO()
    pq.write_table(pa.table({"URL": ["http://a.test/1.jpg"], "TEXT": ["two words"]}), buffer)
    memory.pipe("/tables/a/0.parquet", buffer.getvalue())
    (got,) = selected(recipe("laion-coco", "memory://tables/*/*.parquet", tmp_path / "one"))
    assert got["source"] == "0.parquet"
    memory.pipe(
        "/lines/a.jsonl", b'{"image_path": "p/1.jpg", "text": ["one"]}\n{"image_path": "p/2.jpg", "text": ["two"]}\n'
    )
    memory.pipe("/lines/p/1.jpg", jpeg(picture(1)))
    found = selected(recipe("jsonl", "memory://lines/*.jsonl", tmp_path / "two"))
    assert [row["url"] for row in found] == ["p/1.jpg", "p/2.jpg"]
    answers = list(OwnPictures.of(tmp_path / "two", 10**6).answers(found))
    assert [(answer.reason, answer.body == jpeg(picture(1))) for answer in answers] == [
        (None, True),
        ("missing_file", False),
    ]
    small = list(OwnPictures.of(tmp_path / "two", 10).answers(found))
    assert [answer.reason for answer in small] == ["too_large", "missing_file"]


@pytest.fixture
def img2dataset_writer(monkeypatch):
    """Return img2dataset's writer of webdatasets; its package is not imported whole, which brings OpenCV and wandb."""
    spec = importlib.util.find_spec("img2dataset")
    if spec is None:
        pytest.skip("img2dataset is not installed")
    package = types.ModuleType("img2dataset")
    package.__path__ = list(spec.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "img2dataset", package)
    from img2dataset.writer import WebDatasetSampleWriter

    return WebDatasetSampleWriter


def test_img2datasets_own_writer(tmp_path, img2dataset_writer):

    names = ("url", "caption", "key", "status", "error_message", "sha256")
    schema = pa.schema([*((name, pa.string()) for name in names), ("similarity", pa.float64())])
    (tmp_path / "in").mkdir()
    writer = img2dataset_writer(0, str(tmp_path / "in"), True, 5, schema, "jpg")
    for n in range(3):
        said = "<urlopen error [Errno 111] Connection refused>" if n == 1 else None
        meta = {
            "url": f"http://a.test/{n}.jpg",
            "caption": f"picture {n}",
            "key": f"{n:09d}",
            "sha256": None,
            "similarity": 0.5,
        }
        meta |= {"status": "failed_to_download" if said else "success", "error_message": said}
        writer.write(None if said else jpeg(picture(n)), meta["key"], meta["caption"], meta)
    writer.close()
    with_table = selected(recipe("img2dataset", str(tmp_path / "in"), tmp_path / "one"))
    assert [(row["url"], row["similarity"]) for row in with_table] == [
        (f"http://a.test/{n}.jpg", 0.5) for n in range(3)
    ]
    answers = {answer.final_url[-5]: answer for answer in OwnPictures.of(tmp_path / "one", 10**6).answers(with_table)}
    assert {n: answer.reason for n, answer in answers.items()} == {"0": None, "1": "connection", "2": None}
    assert answers["2"].body == jpeg(picture(2))
    (tmp_path / "in" / "00000.parquet").unlink()
    without = selected(recipe("img2dataset", str(tmp_path / "in"), tmp_path / "two"))
    kept = [row for row in with_table if row["url"][-5] != "1"]
    assert [(row["uid"], row["similarity"]) for row in without] == [(row["uid"], row["similarity"]) for row in kept]
    assert [answer.reason for answer in OwnPictures.of(tmp_path / "two", 10**6).answers(without)] == [None, None]


KINDS = ("bzip2", "zstd", "xz", "arrow")


def test_a_file_is_known_by_its_first_bytes():
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as file:
        file.addfile(tarfile.TarInfo("a"))
    heads = [
        b"PAR1x",
        tar.getvalue()[:512],
        b'\xef\xbb\xbf {"a": 1}',
        b'[{"a": 1}]',
        b"\x1f\x8b\x08",
        b"<html>\n",
        b"BZh9",
        b"\x28\xb5\x2f\xfd",
        b"\xfd7zXZ\0",
        b"ARROW1",
        b"",
        b"\0\1\2\xff",
    ]
    assert [kind_of(head) for head in heads] == [
        "parquet",
        "tar",
        "jsonl",
        "array",
        "gzip",
        "text",
        *KINDS,
        "empty",
        "?",
    ]


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-be", "utf-32"])
def test_a_text_is_told_in_any_unicode(coding):
    said = [kind_of(f"{text}\n".encode(coding)) for text in ('{"a": 1}', "[1]", "URL,TEXT")]
    assert said == ["jsonl", "array", "text"]


def test_the_data_sets_folder_is_the_fixed_part_of_its_files(tmp_path):
    (tmp_path / "in").mkdir()
    for files in (f"{tmp_path}/in", f"{tmp_path}/in/*.jsonl", f"{tmp_path}/in/**/a?.jsonl", f"{tmp_path}/in/a.jsonl"):
        assert data_folder(recipe("jsonl", files)) == f"file://{tmp_path}/in"
    assert data_folder(recipe("jsonl", [f"{tmp_path}/in/a.jsonl", f"{tmp_path}/b/*.jsonl"])) == f"file://{tmp_path}"
    assert data_folder(recipe("jsonl", str(tmp_path), images="memory://p")).removeprefix("memory://").strip("/") == "p"


def test_an_empty_file_of_lines_has_no_rows(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"")
    assert selected(recipe("jsonl", str(tmp_path / "a.jsonl"), tmp_path / "run")) == []


def test_what_img2dataset_says_of_a_refused_connection():
    assert reason_of_download("<urlopen error [Errno 111] Connection refused>")[0] == "connection"


def test_files_on_s3_without_its_package_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(
        sys.modules["fsspec.registry"]._registry, "s3", raising=False
    )  # another test may have asked for it
    recipe = Recipe(input={"files": "s3://bucket/part-*.parquet"}, tier={"one": {"size": 64}})
    with pytest.raises(RecipeError, match=r"Install s3fs .* Get it with: pip install 'tessera-t2i\[s3\]'"):
        find_files(recipe)


def test_a_store_that_raises_a_class_of_its_own_is_a_fault_of_the_recipe(monkeypatch):
    class NoCredentialsError(Exception):
        """What botocore raises: no OSError."""

    def refuse(*_):
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "isdir", refuse)
    says = r"input\.files: 'memory://nope/a\.parquet' cannot be listed \(NoCredentialsError: Unable to locate"
    with pytest.raises(RecipeError, match=says):
        find_files(recipe("laion-coco", "memory://nope/a.parquet"))


TEXT_TABLE = "URL,TEXT,WIDTH\nhttp://a.test/1.jpg,two words,640\nno line\nhttp://a.test/2.jpg,two words,many\n"


def test_rows_of_a_table_in_text_have_their_fates(tmp_path):
    (tmp_path / "a.csv").write_text(TEXT_TABLE)
    found = selected(recipe("laion-coco", str(tmp_path), tmp_path / "run"))
    assert [(row["source_row"], row["url"], row["width"], row["reason"]) for row in found] == [
        (0, "http://a.test/1.jpg", 640, None),
        (1, None, None, "broken_line"),
        (2, "http://a.test/2.jpg", None, None),
    ]
    assert found[0]["uid"] == uid_of("http://a.test/1.jpg", "two words")
    assert found[1]["uid"] is None


def test_a_file_of_urls_needs_no_table(tmp_path):
    (tmp_path / "urls.txt").write_text("http://a.test/1.jpg\n\nhttp://a.test/2.jpg\n")
    found = selected(recipe("columns", str(tmp_path / "urls.txt"), tmp_path / "run", columns={"url": "url"}))
    assert [(row["url"], row["uid"]) for row in found] == [
        (f"http://a.test/{n}.jpg", uid_of(f"http://a.test/{n}.jpg", None)) for n in (1, 2)
    ]


def test_files_of_several_formats_are_one_input(tmp_path):
    (tmp_path / "a.csv").write_text(TEXT_TABLE)
    (tmp_path / "b.json").write_text(json.dumps([{"URL": "http://b.test/1.jpg", "TEXT": ["first", "second"]}]))
    pq.write_table(pa.table({"URL": ["http://c.test/1.jpg"], "TEXT": ["c"]}), tmp_path / "c.parquet")
    found = selected(recipe("laion-coco", f"{tmp_path}/*.*", tmp_path / "run"))
    assert [(row["source"], row["text"]) for row in found if row["url"]] == [
        ("a.csv", "two words"),
        ("a.csv", "two words"),
        ("b.json", "first"),
        ("c.parquet", "c"),
    ]


def test_a_table_that_a_run_has_read_is_not_hashed_again(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text(TEXT_TABLE)
    made = recipe("laion-coco", str(tmp_path / "a.csv"), tmp_path / "run")
    (first,) = register_files(made.root, with_tables(made, look_at_inputs(made)))
    monkeypatch.setattr("pipeline.inputs.files._measure", lambda url: pytest.fail("it has not changed"))
    (again,) = register_files(made.root, with_tables(made, look_at_inputs(made)))
    assert (again.footer, again.bytes, again.url) == (first.footer, first.bytes, first.url)
    monkeypatch.undo()
    (tmp_path / "a.csv").write_text(TEXT_TABLE.replace("640", "641"))
    with pytest.raises(RecipeError, match=r"made from another input: a\.csv has other content now"):
        register_files(made.root, with_tables(made, look_at_inputs(made)))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.csv", b"link,words\n", r"a\.csv has no column 'URL' for the URLs; its columns are link, words; say which"),
        (
            "a.zip",
            b"PK\x03\x04" + bytes(600),
            r"a zip archive; .*wants a Parquet table; unpack it first; tables can be",
        ),
        ("a.arrow", b"ARROW1" + bytes(600), r"a\.arrow is an Arrow file; .*; tables can be \.parquet, \.csv, \.tsv"),
        ("a.xlsx.gz", gzip.compress(b"x"), r"a gzip archive; .*; tables can be \.parquet, \.csv"),
    ],
)
def test_a_format_that_cannot_be_read_says_which_can(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecipeError, match=says):
        look_at_inputs(recipe("laion-coco", str(tmp_path / name)))


def test_a_file_without_rows_is_no_loss_and_a_pipe_is_one(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"\n"))
    (tmp_path / "c.csv").write_text("URL,TEXT\n")
    os.mkfifo(tmp_path / "d.parquet")
    made = recipe("laion-coco", f"{tmp_path}/*", tmp_path / "run")
    files = with_tables(made, look_at_inputs(made))
    assert [(file.name, file.rows) for file in files if not file.fault] == [
        (name, 0) for name in ("a.csv", "b.txt.gz", "c.csv")
    ]
    assert files[3].fault == f"cannot be opened: not a plain file: {tmp_path}/d.parquet"


def test_a_table_in_text_is_none_of_local_pictures(tmp_path):
    (tmp_path / "a.csv").write_text(TEXT_TABLE)
    says = r"a\.csv is a table in text; .* wants lines of JSON; .*: laion-coco, coyo, datacomp, columns"
    with pytest.raises(RecipeError, match=says):
        look_at_inputs(recipe("jsonl", str(tmp_path / "a.csv")))


def test_faults_of_tables_in_text(tmp_path):
    """Text called .parquet was 'corrupted'."""
    (tmp_path / "a.parquet").write_text(TEXT_TABLE)
    (tmp_path / "b.csv").write_text("URL,URL\n")
    (tmp_path / "c.csv.gz").write_bytes(b"\x1f\x8b" + bytes(600))
    (tmp_path / "d.json").write_text("{\n}")
    (tmp_path / "e.orc").write_bytes(b"ORC\0\xff" * 100)
    (tmp_path / "f.parquet").write_bytes(b"\0\xff" * 100)
    faults = {file.name: file.fault for file in look_at_inputs(recipe("laion-coco", f"{tmp_path}/*"))}
    assert "(text; tables can be .parquet, .csv, .tsv, .txt (a URL a line), .json" in faults["a.parquet"]
    assert "(something else; tables can be .parquet, .csv" in faults["e.orc"]
    assert faults["f.parquet"].startswith("not a readable Parquet file: ")
    assert "tables can be" not in faults["f.parquet"]
    assert faults["b.csv"] == "column 'URL' stands in it twice"
    assert faults["c.csv.gz"].startswith("cannot be unpacked: ")
    assert faults["d.json"].startswith("JSON that is no table; wanted an array of objects")


def test_names_that_chain_nothing_or_are_not_utf8(tmp_path):
    """The first were lost, the second ended the run with a traceback."""
    pq.write_table(pa.table({"URL": ["http://a.test/1"], "TEXT": ["x"]}), tmp_path / "a::b.parquet")
    data = (tmp_path / "a::b.parquet").read_bytes()
    (tmp_path / "d::e").mkdir()
    (tmp_path / "d::e" / "simplecache::c.parquet").write_bytes(data)
    folder = os.fsencode(tmp_path)
    os.mkdir(folder + b"/f\xe9")
    for name in (b"caf\xe9.parquet", b"f\xe9/1.parquet", b"._\xe9.parquet"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(data)
    notes = []
    made = recipe("laion-coco", str(tmp_path), tmp_path / "run")
    said = "its name, or its folder's, is not UTF-8: rename it"
    assert [(file.name, file.rows, file.fault) for file in look_at_inputs(made, notes)] == [
        ("a::b.parquet", 1, ""),
        ("caf\ufffdE9.parquet", 0, said),
        ("d::e/simplecache::c.parquet", 1, ""),
        ("f\ufffdE9/1.parquet", 0, said),
    ]
    assert [note[-20:] for note in notes] == [f"{tmp_path!s}/._\ufffdE9.parquet"[-20:]]
    assert [row["url"] for row in selected(made)] == ["http://a.test/1"] * 2
    assert [row["url"] for row in selected(recipe("laion-coco", f"{tmp_path}/d::e/*", tmp_path / "r"))] == [
        "http://a.test/1"
    ]


def test_a_text_with_nuls_is_text_and_other_control_characters_are_not():
    assert kind_of(b"image_path,text\n\0\0,a\n") == "text"
    assert kind_of(b"[\n\0 1]\n...") == "array"
    assert kind_of(b"ab\n\0\1\2\3\4...") == "?"
    assert kind_of(b"\0" * 512) == "?"
