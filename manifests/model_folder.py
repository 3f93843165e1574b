"""A folder of a model's files in Hugging Face's layout (config, safetensors, tokenizer): which files it lacks, which of
them count, and the fingerprint over those."""

import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

from manifests.checksums import cached_sha256
from manifests.files import FormatError, parse_json, parsing

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""Beside weights in several shards: which tensor lies in which."""


def missing_files(folder: Path, others: Sequence[tuple[str, ...]] = ()) -> list[str]:
    """Return the names of what a model folder lacks for loading: its config, its weights (each shard of an index), and
    of each tuple of `others` any one file. Raises OSError."""
    missing = [] if (folder / CONFIG).is_file() else [CONFIG]
    index = folder / INDEX
    if index.is_file():
        missing += _missing_shards(index)
    elif not (folder / WEIGHTS).is_file():
        missing.append(f"{WEIGHTS} (pickled weights are not read)")
    missing += [" or ".join(names) for names in others if not any((folder / name).is_file() for name in names)]
    return missing


def _missing_shards(index: Path) -> list[str]:
    try:
        with parsing(index, "not an index of shards"):
            shards = sorted(set(parse_json(index, index.read_bytes())["weight_map"].values()))
            return [shard for shard in shards if not (index.parent / shard).is_file()]
    except FormatError:
        return [f"a readable {index.name}"]


def model_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files directly in a model folder that end in one of `suffixes`, by name. Raises OSError."""
    return sorted(path for path in folder.iterdir() if path.suffix in suffixes and path.is_file())


def files_fingerprint(files: Sequence[Path]) -> str:
    """Return the sha256 in hex over the lines "name NUL sha256" of files, in the order given: the same wherever the
    folder lies. An unchanged file is hashed once per process. Raises OSError."""
    lines = (f"{path.name}\0{cached_sha256(path)}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
