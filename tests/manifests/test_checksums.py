"""Digests of files: one, one that is asked for again, many in threads; sha256 of "abc" is the first example of FIPS
180-2."""

import os
from pathlib import Path

import pytest

from manifests.checksums import Measured, Stopped, Watch, cached_sha256, measure, measure_all, sha256_file

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
MILLION_A = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
"""sha256 of a million times "a": the third example of FIPS 180-2."""


def file_of(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("data", "digest"), [(b"abc", ABC), (b"", NOTHING), (b"a" * 1_000_000, MILLION_A)])
def test_each_way_gives_the_standard_digest(tmp_path: Path, data: bytes, digest: str) -> None:
    path = file_of(tmp_path / "file", data)
    assert sha256_file(path) == sha256_file(str(path)) == digest
    assert cached_sha256(path) == cached_sha256(str(path)) == digest
    assert measure(path, Watch()) == Measured(digest, len(data))


@pytest.mark.parametrize("digest_of_file", [sha256_file, cached_sha256])
def test_what_is_no_plain_file_is_an_os_error(tmp_path: Path, digest_of_file) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("none", "No such file"), ("pipe", "not a plain file"), (".", "not a plain file")):
        with pytest.raises(OSError, match=says):
            digest_of_file(tmp_path / name)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from now on, in order."""
    names: list[str] = []
    monkeypatch.setattr(
        "manifests.checksums.sha256_file", lambda path: names.append(Path(path).name) or sha256_file(path)
    )
    return names


def test_an_unchanged_file_is_read_once(tmp_path: Path, readings: list[str]) -> None:
    path = file_of(tmp_path / "weights", b"abc")
    assert [cached_sha256(path), cached_sha256(str(path)), cached_sha256(path)] == [ABC] * 3
    assert readings == ["weights"]


def test_another_size_time_or_inode_is_read_again(tmp_path: Path, readings: list[str]) -> None:
    path = file_of(tmp_path / "weights", b"abd")
    facts = path.stat()
    cached_sha256(path)
    file_of(path, b"abc")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))  # a nanosecond later
    assert cached_sha256(path) == ABC
    other = file_of(tmp_path / "other", b"")
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    other.replace(path)
    assert cached_sha256(path) == NOTHING  # another size, the same time
    third = file_of(tmp_path / "third", b"")
    os.utime(third, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    third.replace(path)
    assert cached_sha256(path) == NOTHING  # the same size and time, another inode
    assert readings == ["weights"] * 4


def test_an_error_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "late"
    with pytest.raises(FileNotFoundError):
        cached_sha256(path)
    file_of(path, b"abc")
    assert cached_sha256(path) == ABC


def test_many_files_are_measured_and_counted(tmp_path: Path) -> None:
    first, second = file_of(tmp_path / "first", b"abc"), file_of(tmp_path / "second", b"")
    watch = Watch()
    measured = measure_all([first, second, tmp_path / "none"], 2, watch)
    assert dict(measured) == {
        first: Measured(ABC, 3),
        second: Measured(NOTHING, 0),
        tmp_path / "none": Measured(error="No such file or directory"),
    }
    assert (watch.done, watch.files) == (3, 2)
    assert list(measure_all([], 1, Watch())) == []


def test_a_stopped_watch_stops_the_measuring(tmp_path: Path) -> None:
    watch = Watch()
    watch.stopped.set()
    with pytest.raises(Stopped):
        measure(file_of(tmp_path / "file", b"abc"), watch)
    with pytest.raises(Stopped):
        list(measure_all([tmp_path / "file"], 1, watch))
    assert (watch.done, watch.files) == (0, 0)


def test_few_files_are_under_way_at_a_time_and_none_once_nobody_asks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("manifests.checksums.WAITING", 3)
    paths, asked = [file_of(tmp_path / f"{number}", b"abc") for number in range(20)], []
    found = measure_all((asked.append(path) or path for path in paths), 2, watch := Watch())
    assert next(found) == (paths[0], Measured(ABC, 3))
    assert asked == paths[:3]
    found.close()
    assert watch.stopped.is_set()
    assert [path for path, _ in measure_all(paths, 2, Watch())] == paths
