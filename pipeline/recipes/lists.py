"""Read the lists that a recipe names: exclusions, placeholders, pictures and prompts of evaluation sets; each file
once."""

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.decontaminate import PromptError, Prompts, read_prompts
from filters.dedup import Array, phash
from filters.exclude import OF_ROWS, Exclusions, Listed, ListError, read_list
from filters.images.decode import ImageFault, ImageLimits, open_picture, store
from manifests.checksums import cached_sha256
from manifests.files import FormatError, digest_of, parsing
from manifests.schema import DIGESTS
from pipeline.recipes.schema import ExcludeFile, Recipe, RecipeError

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
RADIUS = {"phash": 16, "pdq": 63}
"""Kind of perceptual hash -> the largest radius, in bits of 64 and of 256."""
Stamp = tuple[str, int, int]
"""A file as it was when it was read: path, size, time of its last change. What was read of a file, not its digest, is
remembered by it."""


@dataclass(frozen=True)
class Pictures:
    """Perceptual hashes (N,) uint64 of listed pictures, the name of each, and the names of those that are no
    pictures."""

    hashes: Array
    names: tuple[str, ...]
    faults: tuple[str, ...] = ()

    @property
    def content(self) -> list[Any]:
        """Return what the hashes and names are, for a step's key."""
        return [[name, f"{int(value):016x}"] for name, value in zip(self.names, self.hashes, strict=True)]


def exclusions(recipe: Recipe) -> tuple[Listed, ...]:
    """Return the lists of [filter] exclude. Raises RecipeError, with the line, for one that cannot be read."""
    return tuple(_listed(_stamp("filter.exclude", one.file), one.kind, one.radius) for one in _entries(recipe))


def empty_exclusions(recipe: Recipe) -> list[str]:
    """Return a warning for each list of [filter] exclude that names nothing. Raises RecipeError as `exclusions`."""
    return [
        f"warning: filter.exclude: {one.file} names nothing ({listed.kind}: 0 values): no row is held against it"
        for one, listed in zip(_entries(recipe), exclusions(recipe), strict=True)
        if len(listed.values) == listed.values.null_count
    ]


def exclusions_key(recipe: Recipe, *kinds: str) -> list[Any]:
    """Return what the lists of these kinds hold, for a step's key."""
    found = [
        (one, listed) for one, listed in zip(_entries(recipe), exclusions(recipe), strict=True) if listed.kind in kinds
    ]
    return [[listed.kind, listed.radius, cached_sha256(Path(one.file))] for one, listed in found]


def row_exclusions(recipe: Recipe) -> Exclusions | None:
    """Return the lists that select holds rows against, or None where there are none."""
    lists = tuple(listed for listed in exclusions(recipe) if listed.kind in OF_ROWS)
    return Exclusions(lists) if lists else None


def _entries(recipe: Recipe) -> list[ExcludeFile]:
    named = recipe.filter.exclude
    return [ExcludeFile(file=one, kind=None, radius=0) if isinstance(one, str) else one for one in _many(named)]


def _many(named: Any) -> list[Any]:
    return [named] if isinstance(named, str | ExcludeFile) else list(named)


def _stamp(key: str, path: str) -> Stamp:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise RecipeError(f"recipe: {key}: cannot read {path!r} ({error.strerror})") from error
    return path, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=64)
def _listed(stamp: Stamp, kind: str | None, radius: int) -> Listed:
    try:
        listed = read_list(Path(stamp[0]), kind, radius)
    except ListError as error:
        raise RecipeError(f"recipe: filter.exclude: {error}") from error
    if radius > RADIUS.get(listed.kind, 0):
        most = f"at most {RADIUS[listed.kind]} bits" if listed.kind in RADIUS else "for pHashes and PDQ"
        raise RecipeError(
            f"recipe: filter.exclude: {stamp[0]}: radius {radius} is {most}; this is a list of {listed.kind}"
        )
    return listed


def placeholders(recipe: Recipe) -> Pictures:
    """Return the pictures of [dedup] placeholders: hex digits, lists of pHashes, picture files. Raises RecipeError."""
    hashes: list[int] = []
    names: list[str] = []
    for entry in _many(recipe.dedup.placeholders):
        if re.fullmatch(r"[0-9a-fA-F]{16}", entry):
            found = Pictures(np.array([int(entry, 16)], np.uint64), (f"pHash {entry.lower()}",))
        elif Path(entry).suffix.lower() in PICTURES or Path(entry).is_dir():
            found = _pictures("dedup.placeholders", entry, recipe)
        else:
            found = _hash_list(entry)
        hashes.extend(found.hashes.tolist())
        names.extend(found.names)
    return Pictures(np.array(hashes, np.uint64), tuple(names))


def _hash_list(entry: str) -> Pictures:
    listed = _listed(_stamp("dedup.placeholders", entry), "phash", 0)
    values = listed.values.to_numpy(zero_copy_only=False).astype(np.uint64)
    return Pictures(values, tuple(f"{listed.name}: {int(value):016x}" for value in values))


def evaluation_pictures(recipe: Recipe) -> Pictures:
    """Return the pictures of [decontaminate] images, through the same gate as fetched ones. Raises RecipeError."""
    found = [_pictures("decontaminate.images", entry, recipe) for entry in _many(recipe.decontaminate.images)]
    hashes = np.concatenate([np.zeros(0, np.uint64), *(one.hashes for one in found)])
    return Pictures(
        hashes, tuple(name for one in found for name in one.names), tuple(name for one in found for name in one.faults)
    )


def _pictures(key: str, entry: str, recipe: Recipe) -> Pictures:
    _stamp(key, entry)
    files = tuple(_stamp(key, str(path)) for path in _files(Path(entry)))
    found = _hashed(entry, files, _limits(recipe))
    if not found.names:
        raise RecipeError(
            f"recipe: {key}: no picture in {entry!r} ({len(files)} files, {len(found.faults)} of them damaged); "
            f"give a folder, a tar or a file of {', '.join(PICTURES)}"
        )
    return found


def _files(place: Path) -> list[Path]:
    wanted = (*PICTURES, ".tar")
    if not place.is_dir():
        return [place]
    return sorted(path for path in place.rglob("*") if path.suffix.lower() in wanted and path.is_file())


@lru_cache(maxsize=16)
def _hashed(entry: str, files: tuple[Stamp, ...], limits: ImageLimits) -> Pictures:
    hashes: list[int] = []
    names: list[str] = []
    faults: list[str] = []
    for name, found in _through_the_gate(Path(entry), [Path(stamp[0]) for stamp in files], limits):
        if isinstance(found, ImageFault):
            faults.append(f"{name}: {found.reason}")
        else:
            hashes.append(int(phash([found])[0]))
            names.append(name)
    return Pictures(np.array(hashes, np.uint64), tuple(names), tuple(faults))


def evaluation_images(recipe: Recipe) -> "Iterator[tuple[str, Image]]":
    """Yield (name, RGB picture) of [decontaminate] images, as they look once stored."""
    for entry in _many(recipe.decontaminate.images):
        for name, found in _through_the_gate(Path(entry), _files(Path(entry)), _limits(recipe)):
            if not isinstance(found, ImageFault):
                yield name, found


def _limits(recipe: Recipe) -> ImageLimits:
    return ImageLimits(recipe.fetch.max_pixels, recipe.store_side, recipe.fetch.jpeg_quality)


def _through_the_gate(
    entry: Path, files: list[Path], limits: ImageLimits
) -> "Iterator[tuple[str, Image | ImageFault]]":
    """Yield (name, picture as stored or its fault) of files and of pictures in tars; names are relative to a folder."""
    for path in files:
        name = path.relative_to(entry).as_posix() if entry.is_dir() else path.name
        for inner, data in _bodies(path):
            full = f"{name}/{inner}" if inner else name
            try:
                yield full, open_picture(store(data, limits).jpeg, ImageLimits(limits.max_pixels), stored=True)
            except ImageFault as fault:
                yield full, fault


def _bodies(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name inside, bytes) of a picture file or of the pictures of a tar. Raises RecipeError for a tar that
    cannot be read."""
    if path.suffix.lower() != ".tar":
        yield "", path.read_bytes()
        return
    try:
        with parsing(path, "damaged"), tarfile.open(path) as tar:
            for member in (one for one in tar if one.isfile() and Path(one.name).suffix.lower() in PICTURES):
                body = tar.extractfile(member)
                assert body is not None  # a file has one
                yield member.name, body.read()
    except (OSError, FormatError) as error:
        raise RecipeError(f"recipe: {path} is not a readable tar ({error.__cause__ or error})") from error


def evaluation_prompts(recipe: Recipe) -> Prompts | None:
    """Return the n-grams of [decontaminate] prompts, or None where there are none. Raises RecipeError."""
    stamps = tuple(_stamp("decontaminate.prompts", entry) for entry in _many(recipe.decontaminate.prompts))
    return _prompts(stamps, recipe.decontaminate.ngram, recipe.decontaminate.whole) if stamps else None


@lru_cache(maxsize=4)
def _prompts(stamps: tuple[Stamp, ...], ngram: int, whole: int) -> Prompts:
    prompts = Prompts(ngram, whole)
    for path in (Path(stamp[0]) for stamp in stamps):
        try:
            prompts.add(path.name, read_prompts(path))
        except PromptError as error:
            raise RecipeError(f"recipe: decontaminate.prompts: {error}") from error
    return prompts


def dedup_key(recipe: Recipe) -> dict[str, Any]:
    """Return what the dedup step reads of the recipe: values, and what the lists hold instead of where they lie."""
    plain = recipe.plain()
    evaluation = plain["decontaminate"]
    prompts = [
        [Path(entry).name, cached_sha256(Path(entry))]
        for entry in _many(recipe.decontaminate.prompts)
        if evaluation_prompts(recipe)
    ]
    lists = {"prompts": prompts, "images": digest_of(evaluation_pictures(recipe).content)}
    used = bool(_many(recipe.decontaminate.prompts) or _many(recipe.decontaminate.images))
    return {
        **plain["dedup"],
        "placeholders": placeholders(recipe).content,
        "exclude": exclusions_key(recipe, "phash", *DIGESTS),
        "decontaminate": {**evaluation, **lists} if used else {},
    }
