"""Files called by numbers: found whatever zeros stand before them, and none uncounted."""

import pytest

from pipeline.llamagen.numbered import arrays, beyond, find_number


@pytest.fixture
def folder(tmp_path):
    """Return a function that fills the folder a with empty files of these names."""

    def fill(names):
        (tmp_path / "a").mkdir()
        for name in names.split():
            (tmp_path / "a" / name).touch()
        return tmp_path

    return fill


@pytest.mark.parametrize(
    ("names", "name", "found"),
    [
        ("7.npy", "a/7.npy", "7.npy"),
        ("000007.npy", "a/7.npy", "000007.npy"),
        ("007.npy 07.npy", "a/7.npy", "07.npy"),
        ("7.npy 07.npy", "a/7.npy", "7.npy"),
        ("7.npy", "a/007.npy", "7.npy"),
        ("00.npy", "a/0.npy", "00.npy"),
        ("70.npy 17.npy 7.npz", "a/7.npy", "7.npy"),  # none: the name as it is
        ("", "b/7.npy", "7.npy"),
    ],
)
def test_a_number_is_found_whatever_zeros_stand_before_it(folder, names, name, found):
    assert find_number(folder(names), name).name == found


def test_files_that_are_not_of_the_first_numbers(folder):
    names = "0.npy 000.npy 01.npy 2.npy 03.npy 1x.npy x.npy ._4.npy 5.txt"
    found = beyond(folder(names) / "a", 2)
    assert sorted(found) == [(-1, "1x.npy"), (0, "000.npy"), (2, "2.npy"), (3, "03.npy")]


def test_where_there_is_no_folder_there_are_no_arrays(folder, tmp_path):
    assert list(arrays(folder("1.npy x.npy") / "a")) == ["1.npy"]
    assert list(arrays(tmp_path / "none")) == []
    assert list(arrays(tmp_path / "a" / "1.npy")) == []
