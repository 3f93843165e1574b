"""The identity of weights: a file's digest, or the recipe of seeded numbers; every refusal says what to get."""

from pathlib import Path

import pytest

from manifests.weights import WeightsError, WeightsFile, stand_in, weights_file

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""sha256 of "abc": the first example of FIPS 180-2."""


def test_a_file_is_known_by_its_bytes_and_not_by_its_place(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.pt").write_bytes(b"abc")
    here, there = (weights_file("clip", tmp_path / folder / "w.pt", where="Get it.") for folder in ("here", "there"))
    assert here == WeightsFile("clip", ABC, stand_in=False, path=str(tmp_path / "here" / "w.pt"))
    assert here.record() == there.record() == {"name": "clip", "sha256": ABC, "stand_in": False}
    assert here.label == "clip"


def test_a_given_digest_must_match_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"abc")
    for digest in (ABC, "ba7816bf", ""):
        assert weights_file("clip", path, where="Get it.", sha256=digest).sha256 == ABC
    says = (
        f"weights of clip: {path} has sha256 ba7816bf8f01cfea…, wanted ba7817…: the file is altered or another version."
        " Get it."
    )
    with pytest.raises(WeightsError) as refused:
        weights_file("clip", path, where="Get it.", sha256="ba7817")
    assert str(refused.value) == says


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/no/such", "weights of clip: no file at '/no/such'. Get it."),
        ("/", "weights of clip: no file at '/'. Get it."),
        ("/no\0such", r"weights of clip: no file at '/no\x00such'. Get it."),
        ("/" + "x" * 300, f"weights of clip: '/{'x' * 300}' cannot be read (File name too long). Get it."),
        (
            "~nobody-here/w.pt",
            "weights of clip: '~nobody-here/w.pt' cannot be read (Could not determine home directory.). Get it.",
        ),
    ],
)
def test_a_file_that_is_not_there_says_what_to_get(path: str, says: str) -> None:
    with pytest.raises(WeightsError) as refused:
        weights_file("clip", path, where="Get it.")
    assert str(refused.value) == says


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pt").write_bytes(b"abc")
    assert weights_file("clip", "~/w.pt", where="Get it.").path == str(tmp_path / "w.pt")


def test_a_stand_in_says_so_and_is_known_by_its_recipe() -> None:
    weights = stand_in("clip-tiny", "2x32, seed 0")
    assert weights.label == "clip-tiny (stand-in weights)"
    # printf 'stand-in|clip-tiny|2x32, seed 0' | sha256sum
    assert weights.record() == {
        "name": "clip-tiny",
        "sha256": "0f426c8c9f0d41e46a1d9311bcc1f5b92770030a93a9ae5d46f28e80d45c1646",
        "stand_in": True,
    }
    assert weights.path == ""
