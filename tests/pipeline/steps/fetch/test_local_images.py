"""Pictures that came with the input, as files or in tars: one answer for every row, and what may not be read is not."""

import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.fetch.digests import NONE, digests_of
from manifests.shards import write_shard
from pipeline.inputs.files import InputFile
from pipeline.steps.fetch.local_images import OwnPictures
from tests.support.records import uid


def own(max_bytes=100, **files):
    """Return the pictures of input files: name -> (URL of the table, tar or folder of its pictures)."""
    return OwnPictures(
        {name: InputFile(str(url), name, 1, "", pictures=str(place)) for name, (url, place) in files.items()}, max_bytes
    )


def rows(source, urls):
    return [{"uid": uid(number), "url": url, "source": source, "source_row": number} for number, url in enumerate(urls)]


def answered(pictures, planned):
    """Return, by row, the body or the reason."""
    answers = {answer.uid: answer.reason or answer.body for answer in pictures.answers(planned)}
    assert len(answers) == len(planned)
    return [answers[row["uid"]] for row in planned]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "p" / "deep").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "p" / "a.jpg").write_bytes(b"a")
    (tmp_path / "p" / "deep" / "b.jpg").write_bytes(b"b" * 100)
    (tmp_path / "p" / "large.jpg").write_bytes(b"c" * 101)
    (tmp_path / "p" / "empty.jpg").touch()
    (tmp_path / "p" / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "p" / "in.jpg").symlink_to("a.jpg")
    return tmp_path / "p"


@pytest.mark.parametrize(
    ("url", "outcome"),
    [
        ("a.jpg", b"a"),
        ("deep/b.jpg", b"b" * 100),  # as large as one may be
        ("in.jpg", b"a"),
        ("large.jpg", "too_large"),
        ("empty.jpg", "empty_body"),
        ("none.jpg", "missing_file"),
        ("deep", "missing_file"),  # a folder is no picture
        ("a.jpg\0", "missing_file"),
        ("../secret.jpg", "blocked_path"),
        ("deep/../../secret.jpg", "blocked_path"),
        ("../p/a.jpg", b"a"),
        ("out.jpg", "blocked_path"),  # a link that leads out
    ],
)
def test_a_file_of_the_folder_or_why_not(folder, url, outcome):
    assert answered(own(a=("table", folder)), rows("a", [url])) == [outcome]


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe.jpg")
    assert answered(own(a=("table", folder)), rows("a", ["pipe.jpg"])) == ["missing_file"]


def test_every_source_has_its_own_folder(folder, tmp_path):
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "a.jpg").write_bytes(b"other")
    planned = [*rows("one", ["a.jpg"]), {**rows("two", ["a.jpg"])[0], "uid": uid(9)}]
    assert answered(own(one=("table", folder), two=("table", tmp_path / "q")), planned) == [b"a", b"other"]


NOTES = [
    ("k0", "success", None),
    ("k1", "failed_to_download", "<urlopen error [Errno 111] Connection refused>"),
    ("k2", "failed_to_resize", "image too small"),
    ("k3", "failed_to_download", "http_404"),
    ("k4", "success", None),
    ("k0", "success", None),
    (None, "success", None),
    ("k7", "success", None),
]
TAR = [("k0", {"jpg": b"zero"}), ("k1", {"jpg": b"stays unread"}), ("k7", {"jpg": b"s" * 101})]


@pytest.fixture
def tar(tmp_path):
    """Return (table, tar) as img2dataset writes them; the tar lacks k4."""
    columns = dict(zip(("key", "status", "error_message"), zip(*NOTES, strict=True), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "00000.parquet", row_group_size=3)
    write_shard(tmp_path / "00000.tar", TAR)
    return tmp_path / "00000.parquet", tmp_path / "00000.tar"


def test_pictures_of_a_tar_go_by_the_keys_of_its_table(tar):
    assert answered(own(a=tar), rows("a", ["u"] * 8)) == [
        b"zero",
        "connection",
        "size",  # their option left it out as our rule would have
        "http_404",  # our own word
        "missing_file",  # not in the tar
        "missing_file",  # another row has the key
        "missing_file",  # no key
        "too_large",
    ]
    assert answered(own(a=tar), rows("a", ["u"] * 8)[5:6]) == [b"zero"]  # alone it has the key to itself


def test_what_is_wrong_with_a_picture_is_told_by_their_words(tar):
    answers = {answer.uid: answer for answer in own(a=tar).answers(rows("a", ["u"] * 8))}
    assert answers[uid(1)].detail == "failed_to_download: <urlopen error [Errno 111] Connection refused>"
    assert answers[uid(4)].detail == "the tar holds no such picture"
    assert answers[uid(5)].detail == "no key, or a key that another row has"


def test_behind_the_damage_rows_are_of_a_broken_tar(tar):
    _, path = tar
    path.write_bytes(path.read_bytes()[: 2 * 512 + 512 + 100])  # k0 whole, the header of k1 cut
    assert answered(own(a=tar), [rows("a", ["u"] * 8)[n] for n in (0, 7)]) == [b"zero", "broken_tar"]
    path.unlink()
    assert answered(own(a=tar), rows("a", ["u"])) == ["missing_file"]


def test_an_empty_member_and_one_that_is_no_picture(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        file.addfile(tarfile.TarInfo("k0.jpg"))
        file.addfile(tarfile.TarInfo("k1.txt"))
    pq.write_table(pa.table({"key": ["k0", "k1"]}), tmp_path / "x.parquet")  # no column says how it went
    assert answered(own(a=(tmp_path / "x.parquet", tmp_path / "x.tar")), rows("a", ["u", "u"])) == [
        "empty_body",
        "missing_file",
    ]


def test_digests_are_of_the_files_as_they_lie_there(folder, tmp_path):
    answers = list(own(a=("table", folder)).answers(rows("a", ["a.jpg", "deep/b.jpg", "none.jpg"])))
    assert [answer.digests for answer in answers] == [digests_of(b"a"), digests_of(b"b" * 100), NONE]


def test_a_tar_whose_ending_is_in_capitals_is_a_tar(tar):
    table, capitals = tar[0], tar[1].with_name("00000.TAR")
    tar[1].rename(capitals)
    assert answered(own(a=(table, capitals)), rows("a", ["u"] * 2)) == [b"zero", "connection"]
