"""Inputs that are no tables, through the command: LlamaGen's JSON lines, img2dataset's tars, our own pairs; no request
is made."""

import io
import json
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.manifest import Manifest
from manifests.shards import read_shard
from manifests.uid import uid_of
from tests.support.commands import pipeline_here, run_here, run_with_workers
from tests.support.small_web import jpeg, picture

pytestmark = pytest.mark.slow
RECIPE = """
[input]
dataset = "{dataset}"
files = "{files}"
{more}
[output]
root = "{root}"
[fetch]
shard_rows = 5
store_side = 200
[filter]
rules = [{{ use = "text", min_words = 2 }}]
[tier.pretrain]
size = 64
rules = [{{ use = "size", min_side = 64 }}]
"""


def write_recipe(folder, dataset, files, more="", name="run"):
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(dataset=dataset, files=files, more=more, root=folder / name))
    return path


def finals(root):
    table = pa.concat_tables(pq.read_table(path) for path in sorted((root / "ledger" / "final").glob("*.parquet")))
    return sorted(table.to_pylist(), key=lambda row: (row["source"], row["source_row"]))


def reasons(root):
    return [row["reason"] for row in finals(root)]


def pairs(root):
    return {key: sample for path in sorted((root / "pairs").glob("*.tar")) for key, sample in read_shard(path)}


def made(root):
    return Manifest.read(root / "manifests" / "filter.json")


def line(path, *captions, **more):
    return json.dumps({"image_path": str(path), "text": list(captions), **more})


@pytest.fixture
def llamagen(tmp_path):
    """Write a folder of JSON lines with one row of each kind; return (folder, expected reasons)."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for n in range(4):
        (folder / "images" / f"{n}.jpg").write_bytes(jpeg(picture(n)))
    (folder / "images" / "page.jpg").write_text("<html>sorry</html>")
    (folder / "images" / "empty.jpg").write_bytes(b"")
    (folder / "images" / "folder.jpg").mkdir()
    (tmp_path / "secret.jpg").write_bytes(jpeg(picture(9)))
    (folder / "images" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    os.mkfifo(folder / "images" / "pipe.jpg")
    rows = [
        (line("images/0.jpg", "a blip caption", "A long caption. It goes on.", "A long caption."), None),
        (line(folder / "images" / "1.jpg", "an absolute path"), None),
        (json.dumps({"image_path": "images/2.jpg", "text": "one text alone"}), None),
        (line("images/0.jpg", "a blip caption"), "exact_duplicate"),
        (line("images/none.jpg", "is not there"), "missing_file"),
        (line("images/folder.jpg", "is a folder"), "missing_file"),
        (line("images/pipe.jpg", "is a pipe"), "missing_file"),
        (line("../secret.jpg", "leads out of it"), "blocked_path"),
        (line("/etc/passwd", "leads out of it"), "blocked_path"),
        (line("images/link.jpg", "leads out of it"), "blocked_path"),
        (line("http://127.0.0.1:1/x.jpg", "is on the web"), "blocked_path"),
        (line("images/page.jpg", "is a page"), "not_an_image"),
        (line("images/empty.jpg", "is an empty file"), "empty_body"),
        (line("", "has no path"), "bad_url"),
        ("{not json", "broken_line"),
        ('["a list"]', "broken_line"),
        ('{"text": ["no path at all"]}', "broken_line"),
        (line("images/3.jpg"), "missing_value"),
        (line("images/3.jpg", "short"), "text"),
        (line("images/../images/3.jpg", "half a \ud800 pair"), None),
    ]
    (folder / "a.jsonl").write_bytes("\n".join(row for row, _ in rows).encode("utf-8", "surrogatepass"))
    return folder, [reason for _, reason in rows]


def test_llamagens_lines(llamagen, tmp_path):
    folder, wanted = llamagen
    recipe = write_recipe(tmp_path, "jsonl", folder)
    done = run_with_workers(recipe, "filter", "--workers", "2")
    root = tmp_path / "run"
    assert reasons(root) == wanted
    rows = finals(root)
    assert [row["source_row"] for row in rows] == list(range(len(wanted)))
    assert {row["source"] for row in rows} == {"a.jsonl"}
    assert [row["uid"] is None for row in rows] == [reason == "broken_line" for reason in wanted]
    assert rows[1]["url"] == "images/1.jpg"
    assert rows[1]["uid"] == uid_of("images/1.jpg", "an absolute path")
    assert made(root).rows_in == len(wanted) == made(root).kept + sum(made(root).dropped.values())
    kept = pairs(root)
    first = kept[uid_of("images/0.jpg", "a blip caption").hex()]
    assert first["jpg"] == (folder / "images" / "0.jpg").read_bytes()
    assert json.loads(first["json"])["top_caption"] == "A long caption. It goes on."
    assert "nothing to do" in run_here(recipe, "filter").stdout
    run_here(recipe, "filter", "--out", tmp_path / "here")
    assert made(tmp_path / "here").digest == made(root).digest  # without workers, in another folder
    assert "warning" not in done.stderr
    checked = pipeline_here("verify", root)
    assert checked.exit_code == 0, checked.output
    (table,) = (root / "manifests" / "input").iterdir()
    table.write_bytes(table.read_bytes()[:-1])
    assert f"manifests/input/{table.name}" in pipeline_here("verify", root).stdout


def test_fates_of_lines_do_not_depend_on_the_folder(llamagen, tmp_path):
    folder, _ = llamagen
    run_here(write_recipe(tmp_path, "jsonl", folder), "filter")
    text = (folder / "a.jsonl").read_text()
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    (elsewhere / "a.jsonl").write_text(text)
    run_here(
        write_recipe(tmp_path, "jsonl", f"{elsewhere}/*.jsonl", f'images = "{elsewhere}"', "again"),
        "filter",
    )
    # the absolute path of one row leads out of the folder that it was moved to
    assert reasons(tmp_path / "again")[1] == "blocked_path"
    (elsewhere / "a.jsonl").write_text(text.replace(str(folder) + "/", ""))
    run_here(write_recipe(tmp_path, "jsonl", elsewhere, name="third"), "filter")
    same = [[(row["uid"], row["reason"]) for row in finals(tmp_path / name)] for name in ("run", "third")]
    assert same[0] == same[1]


def test_all_pictures_elsewhere_is_a_fault_of_the_recipe(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.jpg").write_bytes(jpeg(picture(0)))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.jsonl").write_text(line(tmp_path / "images" / "0.jpg", "two words") + "\n")
    recipe = write_recipe(tmp_path, "jsonl", tmp_path / "lists")
    assert "[input] images" in run_here(recipe, "filter", code=2).stderr
    run_here(write_recipe(tmp_path, "jsonl", tmp_path / "lists", f'images = "{tmp_path}/images"'), "filter")
    assert reasons(tmp_path / "run") == [None]
    assert finals(tmp_path / "run")[0]["url"] == "0.jpg"


def member(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_tar(path, *samples):
    """Write samples (key, picture's ending, bytes, caption, more of the json)."""
    with tarfile.open(path, "w") as tar:
        for key, ending, data, caption, more in samples:
            member(tar, f"{key}.{ending}", data)
            member(tar, f"{key}.txt", caption.encode())
            note = {
                "url": f"http://w.test/{key}.jpg",
                "caption": caption,
                "key": key,
                "status": "success",
                "error_message": None,
                **more,
            }
            member(tar, f"{key}.json", json.dumps(note).encode())


def write_table(path, *rows):
    """Write (key, caption, status, error_message)."""
    pq.write_table(
        pa.Table.from_pylist(
            [
                {
                    "url": f"http://w.test/{key}.jpg",
                    "caption": caption,
                    "key": key,
                    "status": status,
                    "error_message": said,
                    "width": None,
                }
                for key, caption, status, said in rows
            ],
            schema=pa.schema(
                [
                    *((name, pa.string()) for name in ("url", "caption", "key", "status", "error_message")),
                    ("width", pa.int32()),
                ]
            ),
        ),
        path,
        row_group_size=3,
    )


def test_tars_with_their_tables(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    good = [(f"0000000{n}", "jpg", jpeg(picture(n)), f"picture number {n}", {}) for n in range(4)]
    write_tar(folder / "00000.tar", *good, ("00000009", "png", b"<html>", "is a page", {}))
    said = [
        ("00000004", "not there", "failed_to_download", "HTTP Error 404: Not Found"),
        ("00000005", "no such host", "failed_to_download", "<urlopen error [Errno -2] Name or service not known>"),
        ("00000006", "forbidden by header", "failed_to_download", "Use of image disallowed by X-Robots-Tag directive"),
        ("00000007", "not decoded", "failed_to_resize", "Image decoding error"),
        ("00000008", "too small", "failed_to_resize", "image too small"),
    ]
    rows = [
        *((key, caption, "success", None) for key, _, _, caption, _ in good),
        *said,
        ("00000009", "is a page", "success", None),
    ]
    rows += [("00000010", "not in it", "success", None), ("00000011", "once ours", "failed_to_download", "too_large")]
    write_table(folder / "00000.parquet", *rows)
    (folder / "00000_stats.json").write_text("{}")
    write_table(folder / "00001.parquet", ("00010000", "no tar here", "success", None))
    run_here(write_recipe(tmp_path, "img2dataset", folder), "filter")
    failed = ["http_404", "dns", "opted_out", "corrupt", "size"]
    assert reasons(tmp_path / "run") == [None] * 4 + [
        *failed,
        "not_an_image",
        "missing_file",
        "too_large",
        "missing_file",
    ]
    kept = pairs(tmp_path / "run")
    assert [sample["jpg"] for sample in kept.values()] == [data for _, _, data, _, _ in good]
    assert finals(tmp_path / "run")[0]["url"] == "http://w.test/00000000.jpg"
    assert {entry["name"] for entry in made(tmp_path / "run").inputs} == {"00000.parquet", "00001.parquet"}


def test_tars_without_tables_and_what_lies_beyond_damage(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    samples = [
        (f"{n}", "jpg", jpeg(picture(n)), f"picture number {n}", {"similarity": 0.5, "width": 96}) for n in range(6)
    ]
    samples[0][4]["url"] = None
    write_tar(folder / "00000.tar", *samples[:3])
    write_tar(folder / "00001.tar", *samples[3:])
    whole = (folder / "00001.tar").read_bytes()
    with tarfile.open(folder / "00001.tar") as tar:
        second = tar.getmember("4.jpg")
    (folder / "00001.tar").write_bytes(whole[: second.offset_data + 100])
    (folder / "00002.tar").write_bytes(b"this is no tar" * 100)
    done = run_here(write_recipe(tmp_path, "img2dataset", f"{folder}/*.tar"), "filter")
    rows = finals(tmp_path / "run")
    got = [(row["source"], row["source_row"], row["reason"]) for row in rows]
    assert got[:4] == [("00000.tar", 0, None), ("00000.tar", 1, None), ("00000.tar", 2, None), ("00001.tar", 0, None)]
    assert [row[2] for row in got[4:]] == ["broken_tar"] * len(got[4:])
    assert rows[0]["url"] == "00000.tar/0.jpg"
    assert rows[1]["url"] == "http://w.test/1.jpg"
    assert rows[1]["similarity"] == 0.5
    assert [loss["name"] for loss in made(tmp_path / "run").losses] == ["00002.tar"]
    assert (
        made(tmp_path / "run").rows_in
        == len(rows)
        == made(tmp_path / "run").kept + sum(made(tmp_path / "run").dropped.values())
    )
    assert "lost: 00002.tar: not a readable tar" in done.stdout


def test_every_sample_of_a_tar_has_a_fate(tmp_path):
    """Samples without a picture that is known, and links, were in no ledger and no count."""
    folder = tmp_path / "in"
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for number, name in enumerate(("trip 2.0 a.jpg", "m.left.jpg", "m.right.jpg", "plain.JPG")):
            member(tar, name, jpeg(picture(number)))
        for name in ("trip 2.0 a.txt", "m.txt", "alone.txt", "link.txt", "plain.txt"):
            member(tar, name, f"words of {name}".encode())
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "plain.JPG"
        tar.addfile(link)
    run_here(write_recipe(tmp_path, "img2dataset", folder), "filter")
    assert [(row["url"], row["reason"]) for row in finals(tmp_path / "run")] == [
        ("0.tar/trip 2.0 a.jpg", None),
        ("0.tar/m.txt", "missing_file"),
        ("0.tar/plain.jpg", None),
        ("0.tar/alone.txt", "missing_file"),
        ("0.tar/link.txt", "missing_file"),
    ]
    assert made(tmp_path / "run").dropped == {"missing_file": 3}
    assert made(tmp_path / "run").rows_in == 5
    kept = {sample["txt"]: sample["jpg"] for sample in pairs(tmp_path / "run").values()}
    assert kept == {b"words of trip 2.0 a.txt": jpeg(picture(0)), b"words of plain.txt": jpeg(picture(3))}


def test_samples_that_the_table_beside_their_tar_lacks_have_a_fate(tmp_path):
    """They were in no ledger and no count; so was a tar beside a table without rows."""
    folder = tmp_path / "in"
    folder.mkdir()
    samples = [(f"{n}", "jpg", jpeg(picture(n)), f"picture number {n}", {}) for n in range(4)]
    for name in ("0", "1"):
        write_tar(folder / f"{name}.tar", *samples)
    write_table(folder / "1.parquet", *((key, caption, "success", None) for key, _, _, caption, _ in samples[:2]))
    pq.write_table(pq.read_table(folder / "1.parquet").slice(0, 0), folder / "0.parquet")
    (tmp_path / "gone.txt").write_text("http://w.test/3.jpg\n")
    recipe = write_recipe(tmp_path, "img2dataset", folder)
    gone = f'filter.exclude=["{tmp_path}/gone.txt"]'
    done = run_here(recipe, "filter", "--set", gone)
    found = [(row["source"], row["source_row"], row["url"], row["reason"]) for row in finals(tmp_path / "run")]
    assert found == [
        *(("0.parquet", n, f"http://w.test/{n}.jpg", "not_in_table") for n in range(3)),
        ("0.parquet", 3, "http://w.test/3.jpg", "removed"),
        *(("1.parquet", n, f"http://w.test/{n}.jpg", None) for n in range(2)),
        ("1.parquet", 2, "http://w.test/2.jpg", "not_in_table"),
        ("1.parquet", 3, "http://w.test/3.jpg", "removed"),
    ]
    assert (made(tmp_path / "run").rows_in, made(tmp_path / "run").dropped) == (8, {"not_in_table": 4, "removed": 2})
    assert "not_in_table" in done.stdout
    said = pipeline_here("why", "http://w.test/2.jpg", "--out", tmp_path / "run").output
    assert "1.parquet row 2\n  fate      dropped: not_in_table\n" in said


def test_a_tar_that_is_cut_under_its_table(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    samples = [(f"{n}", "jpg", jpeg(picture(n)), f"picture number {n}", {}) for n in range(6)]
    write_tar(folder / "0.tar", *samples)
    write_table(folder / "0.parquet", *((key, caption, "success", None) for key, _, _, caption, _ in samples))
    with tarfile.open(folder / "0.tar") as tar:
        cut = tar.getmember("3.jpg").offset  # between two samples, where tar readers end silently
    os.truncate(folder / "0.tar", cut)
    run_here(write_recipe(tmp_path, "img2dataset", folder), "filter")
    assert reasons(tmp_path / "run") == [None] * 3 + ["broken_tar"] * 3


def test_our_own_pairs_can_be_filtered_again(tmp_path, llamagen):
    folder, _ = llamagen
    run_here(write_recipe(tmp_path, "jsonl", folder), "filter")
    run_here(write_recipe(tmp_path, "img2dataset", tmp_path / "run" / "pairs", name="again"), "filter")
    before = {row["uid"]: row["reason"] for row in finals(tmp_path / "run") if row["shard"]}
    assert {row["uid"]: row["reason"] for row in finals(tmp_path / "again")} == before
    assert {"missing_file", "blocked_path", "not_an_image", None} <= set(before.values())
    assert pairs(tmp_path / "again").items() == pairs(tmp_path / "run").items()


@pytest.mark.parametrize(
    ("dataset", "file", "says"),
    [
        (
            "jsonl",
            "t.parquet",
            (
                "t.parquet is a Parquet table; input.dataset = 'jsonl' wants lines of JSON; data sets of that kind:"
                " laion-coco"
            ),
        ),
        (
            "laion-coco",
            "l.jsonl",
            (
                "l.jsonl is lines of JSON; input.dataset = 'laion-coco' wants a Parquet table; data sets of that kind:"
                " jsonl"
            ),
        ),
        (
            "coyo",
            "t.tar",
            (
                "t.tar is a tar of pictures; input.dataset = 'coyo' wants a Parquet table; data sets of that kind:"
                " img2dataset"
            ),
        ),
        ("jsonl", "z.gz", "z.gz is a gzip archive; input.dataset = 'jsonl' wants lines of JSON; unpack it first"),
        ("img2dataset", "l.jsonl", "no file matches"),
        ("columns", "t.parquet", "needs a map of your columns"),
        ("datacomp", "t.parquet", "has no column 'url'"),
    ],
)
def test_a_data_set_of_another_kind_ends_before_any_work(tmp_path, dataset, file, says):
    pq.write_table(pa.table({"URL": ["http://a.test"]}), tmp_path / "t.parquet")
    (tmp_path / "l.jsonl").write_text(line("a.jpg", "b"))
    write_tar(tmp_path / "t.tar", ("0", "jpg", b"", "", {}))
    (tmp_path / "z.gz").write_bytes(b"\x1f\x8b\x08" + bytes(100))
    done = run_here(write_recipe(tmp_path, dataset, tmp_path / file), "filter", code=2)
    assert says in done.stderr
    assert not (tmp_path / "run" / "ledger").exists()
