"""Save and find training checkpoints that are whole or absent, and start from weights that others made.

A checkpoint is a folder `STEP/` with `model.safetensors`, `optimizer.pt` (tensors and numbers only) and `state.json`
(step, seed, data, recipe, and the other two files' sha256). It is written under a temporary name and renamed; in an
object store `state.json` is put last, and taken first where one goes. `latest` names the newest.
"""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from manifests.checksums import sha256_file
from manifests.files import TEMPORARY, FormatError, parsing, read_json, write_bytes, write_json, writing
from manifests.remote_path import RemotePath
from manifests.roots import place_of
from manifests.store import drop, is_remote, link, local_copy, local_scratch
from manifests.weights import WeightsError
from tokenize_shards.tensors import fit, read_tensors

MODEL, OPTIMIZER, STATE, LATEST = "model.safetensors", "optimizer.pt", "state.json", "latest"
REMEMBERED = 16
"""Digests of files in a store that a process remembers."""
STRAY = ("freqs_cis",)
"""Tensors that some of LlamaGen's tools save, and that are computed anyway."""


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint on disk and what its state.json says."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Return the number of finished steps."""
        return int(self.state["step"])


def save_checkpoint(
    root: Path, model: nn.Module, optimizers: list[torch.optim.Optimizer], state: Mapping[str, Any], keep: int
) -> Path:
    """Write `root`/STEP whole, point `latest` at it, drop all but the `keep` newest; return its folder.

    `state` must hold "step". Raises OSError for a full disk; nothing half-written stays.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{int(state['step']):07d}"
    temporary = _beside(folder)
    try:
        _save_model(
            {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, temporary / MODEL
        )
        _save_states([optimizer.state_dict() for optimizer in optimizers], temporary / OPTIMIZER)
        digests = {name: sha256_file(temporary / name) for name in (MODEL, OPTIMIZER)}
        write_json(temporary / STATE, {**state, "sha256": digests}, sealed=True)
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_bytes(root / LATEST, f"{folder.name}\n".encode())
    for old in _folders(root)[keep:]:
        _drop(old)
    return folder


def _beside(folder: Path) -> Path:
    """Make the folder that a checkpoint is written in before it is whole: on a disk beside its place."""
    if is_remote(folder):
        return local_scratch(folder)
    temporary = folder.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{folder.name}")
    temporary.mkdir()
    return temporary


def _publish(made: Path, folder: Path) -> None:
    """Put a whole checkpoint in its place, and in that of one that stands there."""
    if is_remote(folder):
        _drop(folder)
        for name in (MODEL, OPTIMIZER, STATE):
            with writing(folder / name) as local:
                os.replace(made / name, local)
        return
    _sync(made)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(made, folder)


def _drop(folder: Path) -> None:
    """Remove a checkpoint, what makes it one first."""
    (folder / STATE).unlink(missing_ok=True)
    drop(folder)


def _save_model(tensors: dict[str, Tensor], path: Path) -> None:
    """Write safetensors; its own error for a failed write names the system's only in its text."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


class _Sink:
    """A file that remembers why a write failed: torch.save raises a RuntimeError that does not say it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all bytes; keep the error of a write that fails."""
        try:
            rest = memoryview(data)
            while rest:  # a disk that fills up takes a part first, without an error
                rest = rest[self.file.write(rest) :]
            return len(data)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """Do nothing: the file is not buffered."""


def _save_states(states: list[dict[str, Any]], path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        sink = _Sink(file)
        try:
            torch.save(states, sink)  # type: ignore[arg-type]  # write and flush are all it asks for
        except RuntimeError as error:
            if sink.failure is not None:
                raise sink.failure from error
            raise


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())


def _folders(root: Path) -> list[Path]:
    """Return the checkpoint folders, newest first."""
    return sorted(
        (path for path in root.glob("[0-9]*") if path.is_dir()), key=lambda path: int(path.name), reverse=True
    )


def sweep_checkpoints(root: Path) -> None:
    """Remove what dead attempts left."""
    for path in root.glob(f"{TEMPORARY}*"):
        drop(path)
    for path in _folders(root) if is_remote(root) else ():
        if not (path / STATE).exists():
            drop(path)


def set_aside(folder: Path, aside: Path) -> None:
    """Give a folder of checkpoints, samples and metrics another name: at once on a disk; in an object store file by
    file, none of which goes before all are there."""
    if not is_remote(folder):
        folder.rename(aside)
        return
    for path in sorted(folder.rglob("*")):
        link(path, aside.joinpath(*path.parts[len(folder.parts) :]))
    drop(folder)


def latest_checkpoint(root: Path) -> Checkpoint | None:
    """Return the newest checkpoint whose files have the digests of its state.json; damaged ones are named and passed
    over."""
    for folder in _folders(root):
        try:
            return _read_checkpoint(folder)
        except (OSError, FormatError) as error:
            print(f"checkpoint {folder} is damaged ({error}): trying the one before", file=sys.stderr)
    return None


def _read_checkpoint(folder: Path) -> Checkpoint:
    """Return a checkpoint of whole files. Raises FormatError for a damaged or malformed one, OSError."""
    state = read_json(folder / STATE)
    with parsing(folder / STATE, "not the state of a checkpoint"):
        wrong = [name for name, digest in state["sha256"].items() if _sha256(folder / name) != digest]
    if wrong:
        raise FormatError(f"{', '.join(wrong)}: not the recorded sha256")
    return Checkpoint(folder, state)


def _sha256(path: Path) -> str:
    """Return a file's sha256; of an object that is not another one by now it is not read again."""
    return _sha256_of(path, path.stat().tag) if isinstance(path, RemotePath) else sha256_file(path)


@lru_cache(maxsize=REMEMBERED)
def _sha256_of(path: Path, tag: str) -> str:
    return sha256_file(path)


def load_checkpoint(checkpoint: Checkpoint, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
    """Put weights and optimizer state back. Raises WeightsError where they do not fit."""
    with local_copy(checkpoint.folder / MODEL) as path:
        load_weights(model, load_file(path), f"checkpoint {checkpoint.folder}")
    with local_copy(checkpoint.folder / OPTIMIZER) as path:
        states = torch.load(path, weights_only=True, map_location="cpu")
    try:
        for optimizer, state in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(state)
    except (ValueError, KeyError) as error:
        raise WeightsError(
            f"{checkpoint.folder}: its optimizer state does not fit this recipe's optimizer ({error})"
        ) from error


def start_from(model: nn.Module, source: str) -> Path:
    """Load weights alone from a checkpoint folder, a folder of checkpoints, .safetensors, or a .pt such as LlamaGen's;
    return the file.

    Raises WeightsError for a missing, damaged or unsafe file, or another model's.
    """
    path = place_of(source).expanduser()
    if path.is_dir():
        pointer = path / LATEST
        path = path / (pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ".") / MODEL
    if not path.is_file():
        raise WeightsError(
            f"train.init_from: no weights at {source!r}; wanted a checkpoint folder, a folder of checkpoints"
            " (train/TIER/checkpoints), a .safetensors file, or a .pt such as t2i_XL_stage1_256.pt"
            " (huggingface.co/peizesun/llamagen_t2i)"
        )
    with local_copy(path) as local:
        try:
            tensors = read_tensors(local)
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(local), str(path))) from error
        load_weights(model, tensors, f"train.init_from {path}")
    return path


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], who: str) -> None:
    """Load strictly, but for stray tensors that are computed anyway. Raises WeightsError with the first names that do
    not fit."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(fit({name: tensor for name, tensor in tensors.items() if name not in STRAY}, shapes, who))
