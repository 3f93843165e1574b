"""Save and find training checkpoints that are whole or absent, and start from weights that others made.

A checkpoint is a folder `STEP/` with `model.safetensors`, `ema.safetensors` where there is a running average, the
optimizers' states (`optimizer.pt`, or the parts of several processes in `optimizer/`: tensors and numbers only) and
`state.json` (step, seed, data, recipe, and the other files' sha256). It is written under a temporary name and renamed;
in an object store `state.json` is put last, and taken first where one goes. `latest` names the newest.
"""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from manifests.checksums import sha256_file
from manifests.files import TEMPORARY, FormatError, parsing, read_json, write_bytes, write_json, writing
from manifests.remote_path import RemotePath
from manifests.store import drop, is_remote, link, local_copy, local_scratch
from manifests.weights import WeightsError
from pipeline.training.distributed import Machine
from pipeline.training.optimizer_states import Trained, read_parts, take_up, write_states
from pipeline.training.sharding import like, part
from pipeline.training.weights import EMA, LATEST, MODEL, STATE, GPTFacts
from tokenize_shards.tensors import fit

OPTIMIZER = "optimizer.pt"
REMEMBERED = 16
"""Digests of files in a store that a process remembers."""


@dataclass(frozen=True)
class Checkpoint:
    """One whole checkpoint on disk and what its state.json says."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        """Return the number of finished steps."""
        return int(self.state["step"])


def save_checkpoint(root: Path, trained: Trained, state: Mapping[str, Any], keep: int) -> Path:
    """Write `root`/STEP whole, point `latest` at it, drop all but the `keep` newest; return its folder.

    For weights that are whole on this process; `saving.Saver` is for all. `state` must hold "step", and "gpt" is what
    the headers of its safetensors files say. Raises OSError for a full disk; nothing half-written stays.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"{int(state['step']):07d}"
    temporary = _beside(folder)
    try:
        write_weights(temporary, trained.weights(), trained.average(), state)
        write_states([optimizer.state_dict() for optimizer in trained.optimizers], temporary / OPTIMIZER)
        write_state(temporary, state, {OPTIMIZER: sha256_file(temporary / OPTIMIZER)})
        publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    point_latest(root, folder, keep)
    return folder


def write_weights(
    folder: Path, model: Mapping[str, Tensor], ema: Mapping[str, Tensor] | None, state: Mapping[str, Any]
) -> None:
    """Write `model.safetensors` and, where there is a running average, `ema.safetensors`, by LlamaGen's names."""
    told = GPTFacts(**state["gpt"]) if "gpt" in state else None
    for name, tensors in ((MODEL, model), (EMA, ema)):
        if tensors is not None:
            header = replace(told, step=int(state["step"])).header(name == EMA) if told else None
            held = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            _save_tensors(held, folder / name, header)


def write_state(made: Path, state: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    """Write the state of a checkpoint whose weights lie in `made`. `digests`: sha256 of its other files by name."""
    weights = {name: sha256_file(made / name) for name in (MODEL, EMA) if (made / name).is_file()}
    write_json(made / STATE, {**state, "finite": True, "sha256": {**weights, **digests}}, sealed=True)


def point_latest(root: Path, folder: Path, keep: int) -> None:
    """Point `latest` at a checkpoint, and drop all but the `keep` newest."""
    write_bytes(root / LATEST, f"{folder.name}\n".encode())
    for old in _folders(root)[keep:]:
        drop_checkpoint(old)


def _beside(folder: Path) -> Path:
    """Make the folder that a checkpoint is written in before it is whole: on a disk beside its place."""
    if is_remote(folder):
        return local_scratch(folder)
    temporary = folder.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{folder.name}")
    temporary.mkdir()
    return temporary


def publish(made: Path, folder: Path) -> None:
    """Put a whole checkpoint in its place, and in that of one that stands there."""
    if is_remote(folder):
        drop_checkpoint(folder)
        put(made, folder)
        return
    _sync(made)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(made, folder)


def put(made: Path, folder: Path) -> None:
    """Move all files of a local folder to one in a store, what makes it a checkpoint last."""
    for path in sorted((path for path in made.rglob("*") if path.is_file()), key=lambda path: path.name == STATE):
        with writing(folder.joinpath(*path.relative_to(made).parts)) as local:
            os.replace(path, local)


def drop_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, what makes it one first."""
    (folder / STATE).unlink(missing_ok=True)
    drop(folder)


def _save_tensors(tensors: dict[str, Tensor], path: Path, header: dict[str, str] | None) -> None:
    """Write safetensors; its own error for a failed write names the system's only in its text."""
    try:
        save_file(tensors, path, header)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
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
    """Return the newest checkpoint whose files have the digests of its state.json and hold finite numbers; others are
    named and passed over."""
    for folder in _folders(root):
        try:
            return _read_checkpoint(folder)
        except (OSError, FormatError) as error:
            print(f"checkpoint {folder} is damaged ({error}): trying the one before", file=sys.stderr)
    return None


def agreed_checkpoint(root: Path, machine: Machine) -> Checkpoint | None:
    """Return the newest whole checkpoint on every process; the leading one alone reads what it holds."""
    found = latest_checkpoint(root) if machine.leads else None
    if machine.world == 1:
        return found
    step = torch.tensor(-1 if found is None else found.step, device=machine.device)
    torch.distributed.broadcast(step, 0)
    folder = root / f"{int(step):07d}"
    return found or (None if int(step) < 0 else Checkpoint(folder, read_json(folder / STATE)))


def _read_checkpoint(folder: Path) -> Checkpoint:
    """Return a checkpoint of whole files. Raises FormatError for a damaged or malformed one, OSError."""
    state = read_json(folder / STATE)
    with parsing(folder / STATE, "not the state of a checkpoint"):
        wrong = [name for name, digest in state["sha256"].items() if _sha256(folder / name) != digest]
    if wrong:
        raise FormatError(f"{', '.join(wrong)}: not the recorded sha256")
    if not state.get("finite") and MODEL in state["sha256"]:  # of before states were looked at
        with local_copy(folder / MODEL) as path:
            broken = not_finite(load_file(path))
        if broken:
            raise FormatError(f"{MODEL} holds NaN or infinite numbers in {', '.join(broken[:3])}")
    return Checkpoint(folder, state)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that hold NaN or infinite numbers; of one that is spread, in this process's part."""
    names = [name for name, tensor in tensors.items() if tensor.is_floating_point() and part(tensor).numel()]
    flags = [part(tensors[name]).detach().isfinite().all() for name in names]
    good = torch.stack(flags).tolist() if flags else []  # one wait for the device
    return [name for name, is_finite in zip(names, good, strict=True) if not is_finite]


def _sha256(path: Path) -> str:
    """Return a file's sha256; of an object that is not another one by now it is not read again."""
    return _sha256_of(path, path.stat().tag) if isinstance(path, RemotePath) else sha256_file(path)


@lru_cache(maxsize=REMEMBERED)
def _sha256_of(path: Path, tag: str) -> str:
    return sha256_file(path)


def load_checkpoint(checkpoint: Checkpoint, trained: Trained) -> None:
    """Put weights, running average and optimizer state back, as they lie in `trained`: whole, or this process's slices.

    The average of a checkpoint without one starts from its weights. Raises WeightsError where they do not fit.
    """
    who, ema = f"checkpoint {checkpoint.folder}", checkpoint.folder / EMA
    with local_copy(checkpoint.folder / MODEL) as path:
        put_weights(trained.model, load_file(path), who)
    if trained.ema is not None:
        with local_copy(ema if EMA in checkpoint.state["sha256"] else checkpoint.folder / MODEL) as path:
            averages = load_file(path)
        for name, average in trained.ema.items():
            average.copy_(like(averages[name], average))
    load_optimizers(checkpoint, trained)


def load_optimizers(checkpoint: Checkpoint, trained: Trained) -> None:
    """Put the optimizers' states back. Raises WeightsError where they are another recipe's."""
    try:
        if OPTIMIZER in checkpoint.state["sha256"]:
            with local_copy(checkpoint.folder / OPTIMIZER) as path:
                states = torch.load(path, weights_only=True, map_location="cpu")
        else:
            states = read_parts(checkpoint.folder, checkpoint.state["optimizers"], trained)
        for optimizer, state in zip(trained.optimizers, states, strict=True):
            take_up(optimizer, state)
    except (ValueError, KeyError) as error:
        raise WeightsError(
            f"{checkpoint.folder}: its optimizer state does not fit this recipe's optimizer ({error})"
        ) from error


def put_weights(model: nn.Module, tensors: Mapping[str, Tensor], who: str) -> None:
    """Load strictly. Raises WeightsError with the first names that do not fit."""
    held = model.state_dict()
    fitted = fit(tensors, {name: tuple(tensor.shape) for name, tensor in held.items()}, who)
    model.load_state_dict({name: like(tensor, held[name]) for name, tensor in fitted.items()})
