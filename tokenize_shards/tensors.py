"""Read named tensors from checkpoints that nobody vouches for, running no code of theirs."""

import argparse
import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manifests.guard import Guard
from manifests.weights import WeightsError

HOLDERS = ("ema", "model", "state_dict", "module")
"""Keys under which trainers put a model, best first: LlamaGen's evaluation prefers the running average."""
WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
USAGE = "quantize.codebook_used"
"""A record of training that decides no code: left out of the fingerprint."""
SHOWN = 3
TOLD = 40
"""Bytes of a text that is no checkpoint which its refusal repeats."""
LONGEST_HEADER = 100_000_000
"""Bytes that the header of a safetensors file may have."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name, on the CPU, in the dtype of the file, without gradients.

    Takes a flat dict or one under "ema", "model", "state_dict" or "module", the first of them that holds tensors.
    The content, not the name, tells safetensors from torch's format, which is read with weights only: tensors,
    plain containers, and the argparse.Namespace that LlamaGen's trainers save.
    Raises WeightsError for anything else, code in a pickle included.
    """
    return _unwrapped(read_held(path, HOLDERS)[1])


def read_held(path: str | Path, holders: Sequence[str]) -> tuple[str, dict[str, Tensor]]:
    """Return the first of `holders` that has tensors, and them by their names in the file; "" is the file itself.

    Where none has any and "" is not among them, the file itself is looked at last. Reads and raises as `read_tensors`.
    """
    path = Path(path)
    with Guard(passing=(WeightsError,)) as guard:  # torch and its readers of pickles and archives raise anything
        return _named(path, _content(path), holders)
    assert guard.error is not None
    raise WeightsError(f"{path}: wanted a checkpoint of tensors alone; {_fault(path, guard.error)}") from guard.error


def _content(path: Path) -> Any:
    with open(path, "rb") as file:
        start = file.read(9)
    is_safetensors = start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER
    return _safetensors(path) if is_safetensors else _torch(path)


def _named(path: Path, content: Any, holders: Sequence[str]) -> tuple[str, dict[str, Tensor]]:
    """Return the best holder that has tensors, and them. Raises WeightsError for none, or names that are no text."""
    order = holders if "" in holders else [*holders, ""]
    for key in order if isinstance(content, Mapping) else ():
        held = content.get(key) if key else content
        found = (
            {name: value.detach() for name, value in held.items() if isinstance(value, Tensor)}
            if isinstance(held, Mapping)
            else {}
        )
        unnamed = [repr(name) for name in found if not isinstance(name, str)]
        if unnamed:
            raise WeightsError(f"{path}: the names of tensors are texts; got {_few(unnamed)}")
        if found:
            return key, found
    names = ", ".join(key for key in order if key)
    raise WeightsError(f"{path}: no tensors found, neither flat nor under {names}; got {_outline(content)}")


def _fault(path: Path, error: Exception) -> str:
    """Return what is wrong with a file that does not load, not in torch's words: those speak of its innards and advise
    to run the code."""
    try:
        with open(path, "rb") as file:
            start = file.read(TOLD)
    except OSError as unread:
        return f"it cannot be read ({unread.strerror or unread})"
    if not start:
        return "it is empty"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is: altered, or too large for this machine"
    asked = re.search(
        r"GLOBAL (\w[\w.]*) (?:was|whose)|Unsupported class ([\w.]+)", re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    )
    if isinstance(error, pickle.UnpicklingError) and asked:
        return f"it holds code: its pickle asks for {asked[1] or asked[2]}"
    if start.isascii() and start.decode().split("\n")[0].isprintable():
        return f"it is a text that begins {start.decode()!r}: a page or a pointer was saved in the file's place"
    if start.startswith(b"PK") and not _has_directory(path):
        return f"it is cut short: {path.stat().st_size:,} bytes without the directory that ends its archive"
    if isinstance(error, pickle.UnpicklingError):
        return "it is cut short or altered, or holds code: its pickle is not one of plain tensors"
    return f"it is cut short or altered{f' ({error})' if isinstance(error, zipfile.BadZipFile) else ''}"


def _has_directory(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # it has one, altered
        return True


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            altered = archive.testzip()  # torch itself skips the checksums
        if altered:
            raise zipfile.BadZipFile(f"the CRC-32 of {altered} is not the one that it was saved with")
    # A path would let torch choose the reader by the name; an open file has none.
    with torch.serialization.safe_globals([argparse.Namespace]), open(path, "rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPERS * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _outline(content: Any) -> str:
    return (
        f"a dict with {_few(sorted(map(str, content)))}"
        if isinstance(content, Mapping)
        else f"a {type(content).__name__}"
    )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def fit(tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], who: str) -> dict[str, Tensor]:
    """Return the tensors in `wanted`'s order as float32.

    Raises WeightsError, naming keys, unless names and shapes agree and every number is finite.
    """
    faults = []
    missing = [name for name in wanted if name not in tensors]
    if missing:
        faults.append(f"{len(missing)} missing ({_few(missing)})")
    unexpected = [name for name in tensors if name not in wanted]
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected ({_few(unexpected)})")
    misshapen = [
        f"{n}: got {tuple(tensors[n].shape)}, wanted {wanted[n]}"
        for n in wanted
        if n in tensors and tuple(tensors[n].shape) != wanted[n]
    ]
    if misshapen:
        faults.append(f"{len(misshapen)} of another shape ({_few(misshapen)})")
    unlike = [n for n in wanted if n in tensors and not _is_plain(tensors[n])]
    if unlike:
        faults.append(
            f"{len(unlike)} not dense real numbers"
            f" ({_few([f'{n}: {tensors[n].dtype}, {tensors[n].layout}' for n in unlike])})"
        )
    if faults:
        raise WeightsError(
            f"weights of {who} are not its own: of {len(wanted)} tensors wanted and {len(tensors)} got,"
            f" {'; '.join(faults)}"
        )
    fitted = {name: tensors[name].to(torch.float32).contiguous() for name in wanted}
    broken = [name for name, tensor in fitted.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise WeightsError(f"weights of {who} hold NaN or infinite numbers in {len(broken)} tensors ({_few(broken)})")
    return fitted


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type != "meta" and tensor.is_floating_point()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over names, shapes and float32 values in order of name: the same for every file that holds the
    same model."""
    digest = hashlib.sha256()
    for name in sorted(set(tensors) - {USAGE}):
        array = tensors[name].detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(f"{name}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def seeded_tensors(wanted: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Return stand-in weights for a convolutional model, each tensor a function of (seed, its name) alone.

    Weights are normal over the root of their fan-in, so that signals keep their size; gains are near 1, biases near 0.
    """
    return {name: _seeded(name, shape, seed) for name, shape in wanted.items()}


def _seeded(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    if name == USAGE:
        return torch.zeros(shape)
    key = int.from_bytes(hashlib.sha256(f"{seed}|{name}".encode()).digest()[:8], "big")
    z = np.random.default_rng(key).standard_normal(shape, dtype=np.float32)
    if name.endswith("bias"):
        return torch.from_numpy(0.05 * z)
    if len(shape) == 1:
        return torch.from_numpy(1 + 0.1 * z)
    return torch.from_numpy(z / np.float32(np.sqrt(np.prod(shape[1:]))))
