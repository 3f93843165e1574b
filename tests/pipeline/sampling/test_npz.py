"""The streamed .npz: numpy and zipfile read it, a kill anywhere leaves the same bytes, memory is one block."""

import hashlib
import zipfile

import numpy as np
import pytest

from pipeline.sampling.npz import Npz


def pixels(first, count, side=4):
    return np.stack([np.full((side, side, 3), number % 256, np.uint8) for number in range(first, first + count)])


def written(path, count=10, block=4):
    npz = Npz(path, count, 4)
    for first in range(npz.pictures // block * block, count, block):
        npz.add(first, pixels(first, min(block, count - first)))
    npz.finish()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_numpy_and_zipfile_read_it(tmp_path):
    written(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as loaded:
        assert loaded.files == ["arr_0"]
        assert loaded["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(loaded["arr_0"], pixels(0, 10))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
        (info,) = archive.infolist()
        assert (info.filename, info.file_size) == ("arr_0.npy", 128 + 10 * 48)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("cut", [0, 1, 60, 190, 230, 400, 420, 667])
def test_a_kill_anywhere_gives_the_same_bytes(tmp_path, cut):
    whole = written(tmp_path / "a.npz")
    begun = Npz(tmp_path / "b.npz", 10, 4)
    begun.add(0, pixels(0, 4))
    begun.add(4, pixels(4, 4))
    data = begun.part.read_bytes()
    begun.part.write_bytes(data[:cut])
    assert begun.pictures == max(0, min(cut, len(data)) - begun.start) // 48
    assert written(tmp_path / "b.npz") == whole


def test_a_kill_while_the_archive_is_closed_gives_the_same_bytes(tmp_path):
    whole = written(tmp_path / "a.npz")
    begun = Npz(tmp_path / "b.npz", 10, 4)
    begun.add(0, pixels(0, 10))
    with open(begun.part, "ab") as file:
        file.write(b"PK\1\2 half a directory")
    assert begun.pictures == 10
    begun.finish()
    assert hashlib.sha256((tmp_path / "b.npz").read_bytes()).hexdigest() == whole


def test_a_whole_file_is_left_alone(tmp_path):
    whole = written(tmp_path / "a.npz")
    npz = Npz(tmp_path / "a.npz", 10, 4)
    assert npz.pictures == 10
    npz.finish()
    assert written(tmp_path / "a.npz") == whole
    np.testing.assert_array_equal(npz.read(7), pixels(7, 1)[0])


def test_more_than_four_gigabytes_are_said_in_64_bits(tmp_path):
    npz = Npz(tmp_path / "a.npz", 50_000, 256)
    with open(npz.part, "wb") as file:
        file.truncate(npz.start + npz.count * npz.each)  # a hole: no room on the disk is taken
    assert npz.pictures == 50_000
    end = npz._directory(0, npz.start + npz.count * npz.each)
    with open(npz.part, "r+b") as file:
        file.write(npz._local(0) + npz.head)
        file.seek(0, 2)
        file.write(end)
    with zipfile.ZipFile(npz.part) as archive, archive.open("arr_0.npy") as member:
        assert archive.infolist()[0].file_size == 128 + 50_000 * 256 * 256 * 3
        assert np.lib.format.read_magic(member) == (1, 0)
        assert np.lib.format.read_array_header_1_0(member)[0] == (50_000, 256, 256, 3)
