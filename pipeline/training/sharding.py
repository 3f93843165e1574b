"""Place a GPT for training: its layers' inputs kept or all between, its weights whole or spread over the processes.

`train.parallel = "fsdp"` is FSDP2 (torch's fully_shard): each layer, and what remains of the model, is a group whose
parameters, gradients and optimizer states lie in slices on all processes, and whole on each only while it computes.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from pipeline.gpt import GPT, rope_tables
from pipeline.recipes.train import TrainConfig
from pipeline.training.distributed import WHOLE_GRAPHS, Machine


@dataclass(frozen=True)
class Placement:
    """How a GPT lies on the machines: `train.parallel`, `train.activation_checkpointing`, `train.compile`."""

    parallel: str = "ddp"
    recompute: bool = False
    compiled: bool = False
    bf16: bool = False  # the layers compute in bfloat16

    @classmethod
    def of(cls, config: TrainConfig, bf16: bool) -> "Placement":
        """Return what the recipe says."""
        return cls(config.parallel, config.activation_checkpointing, config.compile, bf16)


def placed(gpt: GPT, machine: Machine, placement: Placement) -> GPT:
    """Return the same GPT on the machine's device; to be called before the optimizers are made, and on every process.

    With "fsdp" its parameters become slices (DTensors) of equal initial values on all processes; buffers stay whole.
    """
    if placement.recompute:
        recompute_layers(gpt)
    if placement.parallel != "fsdp":
        return gpt.to(machine.device)
    if not torch.distributed.is_initialized():  # one process, as a group of its own
        torch.distributed.init_process_group(machine.backend, store=HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh(machine.device.type, (machine.world,))
    mixed = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if placement.bf16 else MixedPrecisionPolicy()
    for layer in gpt.layers:
        if placement.compiled:
            layer.compile(**WHOLE_GRAPHS)  # layer by layer: the exchange of weights between them is not traced
        fully_shard(layer, mesh=mesh, mp_policy=mixed)
    # By itself the outermost group stays whole until a backward pass, which a measurement has none of: its weights
    # would be stale where the running average takes their place.
    fully_shard(gpt, mesh=mesh, mp_policy=mixed, reshard_after_forward=True)
    return gpt.to(machine.device)  # the buffers that no group owns


def is_sharded(model: nn.Module) -> bool:
    """Tell whether a model's weights are spread over the processes."""
    return isinstance(model, FSDPModule)


def recompute_layers(gpt: GPT) -> None:
    """Keep each layer's input alone for the way back, and compute the rest again there, with the same dropout.

    Gradients are the same; memory for activations falls from some 16 tensors of (B, S, D) a layer to one, for about a
    third more arithmetic.
    """
    for layer in gpt.layers:
        layer.forward = partial(_kept_input, layer.forward)  # type: ignore[method-assign]


def _kept_input(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


@contextlib.contextmanager
def exchanging(model: nn.Module, *, last: bool) -> Iterator[None]:
    """Let the processes exchange gradients only after a step's last part; earlier parts add up on each alone."""
    inner = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if isinstance(inner, FSDPModule):
        inner.set_requires_gradient_sync(last)
        yield
    elif isinstance(inner, nn.parallel.DistributedDataParallel) and not last:
        with inner.no_sync():
            yield
    else:
        yield


def clip_gradients(parameters: Iterable[nn.Parameter], clip: float) -> Tensor:
    """Scale all gradients so that their norm is at most `clip`; return the norm before, the same on all processes."""
    return whole(nn.utils.clip_grad_norm_(list(parameters), clip))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that is spread over the processes as a whole one; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """Return a whole tensor, the same on all processes, as it lies in the model: whole, or this process's slice."""
    if not isinstance(model, DTensor) or isinstance(tensor, DTensor):
        return tensor
    return distribute_tensor(tensor, model.device_mesh, model.placements, src_data_rank=None)


def whole_gpt(gpt: GPT, average: Mapping[str, Tensor] | None, machine: Machine, bf16: bool = False) -> GPT | None:
    """Return a GPT to draw from on the leading process, with the running average in it where there is one, else None;
    every process must ask. Without either reason for a copy it is the GPT itself."""
    if average is None and not is_sharded(gpt) and not bf16:
        return gpt if machine.leads else None
    tensors = whole_weights({**gpt.state_dict(), **(average or {})}, leads=machine.leads)
    if not machine.leads:
        return None
    with torch.device("meta"):
        copy = GPT(gpt.spec)
    if bf16:
        tensors = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    copy.load_state_dict(tensors, assign=True)
    copy.rope_cos_PR, copy.rope_sin_PR = rope_tables(gpt.spec)  # in float32, and in no file
    return copy.eval().requires_grad_(False).to(machine.device)


def whole_weights(tensors: Mapping[str, Tensor], *, leads: bool) -> dict[str, Tensor]:
    """Return whole tensors on the CPU on the process that leads, nothing on the others; every process must ask."""
    kept = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if leads:
            kept[name] = full.to("cpu", copy=True).contiguous()
    return kept
