"""What this process is among others: rank, world, device, precision."""

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

WHOLE_GRAPHS: dict[str, Any] = {"fullgraph": True, "dynamic": False, "recompile_limit": 256}
"""How a model is compiled for training: one graph for each width of prompts (`conditions.BUCKET`), what breaks a graph
is an error. Left to itself torch takes the second width for any width, of which attention is not told whether it is
causal, so that each layer breaks the graph; and after eight graphs it compiles no more, without an error."""


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
    """Return the model as it is trained: compiled where asked, its gradients averaged over all processes. One that
    FSDP spreads is and does both already.

    DDP stands outside: its own bookkeeping cannot be traced, and would break the graph.
    """
    if isinstance(model, FSDPModule):
        return model
    if compiled:
        model = torch.compile(model, **WHOLE_GRAPHS)  # type: ignore[assignment]
    if machine.world > 1:
        devices = [machine.device] if machine.device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(model, device_ids=devices, forward_sync_buffers=False)
    return model
