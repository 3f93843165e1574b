"""Save checkpoints from all processes: at once where weights are whole, beside training where they are spread.

Spread ones are copied to the CPU first; a thread then writes each process's slices of the optimizers' states, and on
the leading process the whole weights. The next save waits for it; its failure ends the run. Nothing that is not finite
is saved.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from manifests.checksums import sha256_file
from manifests.files import TEMPORARY
from manifests.store import is_remote, local_scratch
from pipeline.training.checkpoint import (
    drop_checkpoint,
    not_finite,
    point_latest,
    publish,
    put,
    save_checkpoint,
    write_state,
    write_weights,
)
from pipeline.training.distributed import Machine
from pipeline.training.optimizer_states import PARTS, Trained, staged, write_parts
from pipeline.training.sharding import is_sharded, whole_weights
from pipeline.training.stopping import TrainError


class CheckpointError(TrainError):
    """A state cannot be saved; what was saved before stays good."""


@dataclass(frozen=True)
class _Copy:
    """One state on the CPU, and where it goes."""

    folder: Path  # of the checkpoint
    state: Mapping[str, Any]
    slots: Mapping[str, Any]  # this process's slices
    weights: Mapping[str, Tensor]  # whole, on the leading process alone
    ema: Mapping[str, Tensor] | None


class Saver:
    """Checkpoints of one run; a context that ends when the last one is whole. All processes call its methods alike."""

    def __init__(self, root: Path, machine: Machine, keep: int) -> None:
        """`root`: the folder of checkpoints, of which the `keep` newest stay."""
        self.root, self.machine, self.keep = root, machine, keep
        self._threads = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[None] | None = None
        self._group: Any = None  # the thread's own: its messages must not meet those of training

    def save(self, trained: Trained, state: Mapping[str, Any]) -> None:
        """Save the state after `state["step"]` steps, once the save before is whole.

        Raises CheckpointError for a state that is not finite, and OSError or CheckpointError for a save that failed.
        """
        self.wait()
        self._refuse_broken(trained, int(state["step"]))
        if not is_sharded(trained.model):
            self.machine.first(lambda: self._save_whole(trained, state))
            return
        leads = self.machine.leads
        average = trained.average()
        copy = _Copy(
            self.root / f"{int(state['step']):07d}",
            {**state, "optimizers": trained.numbers()},
            staged(trained),
            whole_weights(trained.weights(), leads=leads),
            None if average is None else whole_weights(average, leads=leads),
        )
        self._group = self._group or torch.distributed.new_group(backend="gloo")
        self._pending = self._threads.submit(self._write, copy, self._group)

    def check(self) -> None:
        """Raise what made a save fail, as soon as that is known; never wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the save that runs is whole. Raises OSError or CheckpointError where it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Wait for the save that runs; beside another error its own failure is only printed."""
        try:
            self.wait()
        except (OSError, RuntimeError) as failure:
            if error is None:
                raise
            print(f"the checkpoint that was being written failed too: {failure}", file=sys.stderr)
        finally:
            self._threads.shutdown()

    def _save_whole(self, trained: Trained, state: Mapping[str, Any]) -> None:
        save_checkpoint(self.root, trained, state, self.keep)

    def _refuse_broken(self, trained: Trained, step: int) -> None:
        """Raise CheckpointError on every process where any holds a number that is not finite."""
        held = {**trained.weights(), **{f"{name} (optimizer)": slot for name, slot in trained.slots().items()}}
        averages = {f"{name} (average)": tensor for name, tensor in (trained.ema or {}).items()}
        broken = not_finite({**held, **averages})
        if _any(bool(broken), self.machine.world, self.machine.device, None):
            where = ", ".join(broken[:3]) or "another process's part"
            raise CheckpointError(
                f"the state after step {step} holds NaN or infinite numbers ({where}): it is not saved; what was saved"
                f" before stays in {self.root}"
            )

    def _write(self, copy: _Copy, group: ProcessGroup) -> None:
        """Write one copy whole or not at all; on a disk all processes write into one folder."""
        remote = is_remote(copy.folder)
        made = local_scratch(copy.folder) if remote else copy.folder.with_name(f"{TEMPORARY}{copy.folder.name}")
        try:
            self._together(partial(self._open, made, copy.folder), group)
            write_parts(copy.slots, made / PARTS, group)
            digests = self._digests(made, group)
            if remote:
                self._together(lambda: None if self.machine.leads else put(made, copy.folder), group)
            self._together(partial(self._finish, made, copy, digests), group)
        finally:
            if remote or self.machine.leads:
                shutil.rmtree(made, ignore_errors=True)

    def _open(self, made: Path, folder: Path) -> None:
        """Make an empty folder to write in."""
        if is_remote(folder):
            (made / PARTS).mkdir()
        if not self.machine.leads:
            return
        if is_remote(folder):
            drop_checkpoint(folder)
            return
        shutil.rmtree(made, ignore_errors=True)
        (made / PARTS).mkdir(parents=True)

    def _digests(self, made: Path, group: ProcessGroup) -> dict[str, str]:
        """Return the sha256 of all processes' parts by their names in the checkpoint."""
        own = list((made / PARTS).glob(f"shard-{self.machine.rank + 1:05d}-*"))
        mine = {f"{PARTS}/{path.name}": sha256_file(path) for path in own}
        all_of: list[dict[str, str]] = [{} for _ in range(self.machine.world)]
        torch.distributed.all_gather_object(all_of, mine, group)
        return {name: digest for each in all_of for name, digest in each.items()}

    def _finish(self, made: Path, copy: _Copy, digests: Mapping[str, str]) -> None:
        """Add the whole weights and the state, and put the checkpoint in its place."""
        if not self.machine.leads:
            return
        write_weights(made, copy.weights, copy.ema, copy.state)
        write_state(made, copy.state, digests)
        if is_remote(copy.folder):
            put(made, copy.folder)
        else:
            publish(made, copy.folder)
        point_latest(self.root, copy.folder, self.keep)

    def _together(self, work: Callable[[], None], group: ProcessGroup) -> None:
        """Let all processes do something before any goes on. Raises OSError here, or CheckpointError where another
        failed."""
        failure = None
        try:
            work()
        except OSError as error:
            failure = error
        failed = _any(failure is not None, self.machine.world, torch.device("cpu"), group)
        if failure is not None:
            raise failure
        if failed:
            raise CheckpointError(f"another process could not write its part of a checkpoint in {self.root}")


def _any(here: bool, world: int, device: torch.device, group: ProcessGroup | None) -> bool:
    """Tell whether any process says so."""
    if world == 1:
        return here
    flag = torch.tensor(int(here), device=device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, group)
    return bool(flag)
