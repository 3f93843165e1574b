"""What this process is among others: rank, world, device, precision."""

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule


@dataclass(frozen=True)
class Machine:
    """This process among those that train together (torchrun's RANK, LOCAL_RANK, WORLD_SIZE), and its device."""

    rank: int
    world: int
    device: torch.device

    @property
    def backend(self) -> str:
        """Return what its processes talk through."""
        return "nccl" if self.device.type == "cuda" else "gloo"

    @property
    def memory(self) -> float | None:
        """Return the bytes of its card, None where it has none."""
        on_gpu = self.device.type == "cuda"
        return float(torch.cuda.get_device_properties(self.device).total_memory) if on_gpu else None

    @property
    def leads(self) -> bool:
        """Tell whether this process prints and writes."""
        return self.rank == 0

    def say(self, line: str) -> None:
        """Print a line once, not once per process; where nobody reads any more (`… | head`), go on without."""
        if not self.leads or sys.stdout.closed:
            return
        try:
            print(line, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails at its exit
            with contextlib.suppress(OSError):
                print("note: nobody reads the output any more; training goes on without it", file=sys.stderr)

    def first(self, work: Callable[[], None]) -> None:
        """Let the leading process do something before the others go on."""
        if self.leads:
            work()
        if self.world > 1:
            torch.distributed.barrier()


def this_machine() -> Machine:
    """Join the processes that torchrun started, or be the only one."""
    rank, local, world = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))
    )
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    machine = Machine(rank, world, device)
    if world > 1:
        torch.distributed.init_process_group(machine.backend)
    return machine


def wrapped(model: nn.Module, machine: Machine, compiled: bool) -> nn.Module:
    """Return the model as it is trained: its gradients averaged over all processes, compiled where asked. One that
    FSDP spreads does and is both already."""
    if isinstance(model, FSDPModule):
        return model
    if machine.world > 1:
        devices = [machine.device] if machine.device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(model, device_ids=devices, forward_sync_buffers=False)
    if compiled:
        model = torch.compile(model)  # type: ignore[assignment]
    return model
