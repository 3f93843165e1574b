"""Write and read the states of optimizers: as one file of a process, or as parts that any number of processes reads.

Parts are safetensors files of torch.distributed.checkpoint, one a process, without pickle: each holds its slices and
where they begin. Numbers, such as how many steps AdamW took, stand in state.json.
"""

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from manifests.store import is_remote, local_copy, local_scratch
from pipeline.training.sharding import like, whole

PARTS = "optimizer"
"""The folder of a checkpoint that holds the parts."""


@dataclass(frozen=True)
class Trained:
    """What a training step changes: the weights, the optimizers' states and, where wanted, the running average of the
    parameters by name."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    ema: Mapping[str, Tensor] | None = None

    def weights(self) -> dict[str, Tensor]:
        """Return parameters and buffers by LlamaGen's names."""
        return dict(self.model.state_dict())

    def average(self) -> dict[str, Tensor] | None:
        """Return the running average as a whole model: buffers are not averaged."""
        return None if self.ema is None else {**self.weights(), **self.ema}

    def slots(self) -> dict[str, Tensor]:
        """Return the optimizers' tensors as PARAMETER.SLOT, such as norm.weight.exp_avg, without the numbers."""
        return {
            f"{name}.{slot}": value
            for optimizer in self.optimizers
            for name, parameter in self.owned(optimizer)
            for slot, value in optimizer.state.get(parameter, {}).items()
            if value.ndim
        }

    def owned(self, optimizer: torch.optim.Optimizer) -> list[tuple[str, nn.Parameter]]:
        """Return an optimizer's parameters with their names, in its own order."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return [(names[id(one)], one) for group in optimizer.param_groups for one in group["params"]]

    def numbers(self) -> list[dict[str, Any]]:
        """Return for each optimizer the names of its tensors, and its numbers: all its parameters have the same."""
        told = []
        for optimizer in self.optimizers:
            first: Mapping[str, Tensor] = next(iter(optimizer.state.values()), {})
            told.append(
                {
                    "slots": sorted(slot for slot, value in first.items() if value.ndim),
                    "numbers": {slot: float(whole(value)) for slot, value in first.items() if not value.ndim},
                }
            )
        return told


def take_up(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Put a whole state back, as the parameters lie here; rates and decay are the recipe's, not the file's. Raises
    ValueError where it is of other parameters."""
    groups = optimizer.state_dict()["param_groups"]
    sizes, wanted = ([len(group["params"]) for group in each] for each in (saved["param_groups"], groups))
    if sizes != wanted:
        raise ValueError(f"groups of {sizes} parameters, wanted {wanted}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: {slot: like(value, parameters[number]) if value.ndim else value for slot, value in slots.items()}
        for number, slots in saved["state"].items()
    }
    for number, slots in state.items():
        wrong = [slot for slot, value in slots.items() if value.ndim and value.shape != parameters[number].shape]
        if wrong:
            raise ValueError(f"{wrong[0]} of parameter {number} has another shape")
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def staged(trained: Trained) -> dict[str, Any]:
    """Return a copy of this process's slices on the CPU, which training may go on beside."""
    return BlockingAsyncStager().stage(trained.slots())


def write_parts(slots: Mapping[str, Any], folder: Path, group: ProcessGroup) -> None:
    """Write this process's slices into a local folder; every process of the group must. Raises OSError on all of them
    where one fails."""
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        save(dict(slots), storage_writer=writer, process_group=group)
    except CheckpointException as error:
        failures = [failure for failure, _ in error.failures.values()]
        raise next((each for each in failures if isinstance(each, OSError)), OSError(str(failures[0]))) from error


def read_parts(folder: Path, told: Sequence[Mapping[str, Any]], trained: Trained) -> list[dict[str, Any]]:
    """Return each optimizer's state from the parts of a checkpoint's folder, as the parameters lie here. Raises
    ValueError where they do not fit."""
    slots = {
        f"{name}.{slot}": torch.zeros_like(parameter.detach())
        for optimizer, told_of in zip(trained.optimizers, told, strict=True)
        for name, parameter in trained.owned(optimizer)
        for slot in told_of["slots"]
    }
    with _local_parts(folder / PARTS) as local, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # each process reads for itself
        try:
            load(slots, storage_reader=HuggingFaceStorageReader(str(local)), no_dist=True)
        except CheckpointException as error:
            raise ValueError(str(next(iter(error.failures.values()))[0])) from error
    return [
        _state(optimizer, told_of, [name for name, _ in trained.owned(optimizer)], slots)
        for optimizer, told_of in zip(trained.optimizers, told, strict=True)
    ]


def _state(
    optimizer: torch.optim.Optimizer, told: Mapping[str, Any], names: Sequence[str], slots: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return an optimizer's state by the numbers of its parameters."""
    held = {
        number: {
            **{slot: torch.tensor(value) for slot, value in told["numbers"].items()},
            **{slot: slots[f"{name}.{slot}"] for slot in told["slots"]},
        }
        for number, name in enumerate(names if told["slots"] or told["numbers"] else ())
    }
    return {"state": held, "param_groups": optimizer.state_dict()["param_groups"]}


@contextlib.contextmanager
def _local_parts(folder: Path) -> Iterator[Path]:
    """Yield a local folder with the parts."""
    if not is_remote(folder):
        yield folder
        return
    scratch = local_scratch(folder)
    try:
        for path in folder.glob("*.safetensors"):
            with local_copy(path) as copy:
                os.replace(copy, scratch / path.name)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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


def write_states(states: list[dict[str, Any]], path: Path) -> None:
    """Write whole states into one file. Raises OSError."""
    with open(path, "wb", buffering=0) as file:
        sink = _Sink(file)
        try:
            torch.save(states, sink)  # type: ignore[arg-type]  # write and flush are all it asks for
        except RuntimeError as error:
            if sink.failure is not None:
                raise sink.failure from error
            raise
