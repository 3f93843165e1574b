"""Look at loss and gradient norm of all processes before a step is applied, and skip it where they are no good.

The decision is made on the device, and so is the skipping; the host reads the counts some steps later, without waiting.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

REMEMBERED = 128
"""Gradient norms of accepted steps whose median a spike is measured by."""
ENOUGH = 32
"""Norms without which no step counts as a spike: at the start they rise by themselves."""
ACCEPTED, BROKEN, SPIKES, IN_A_ROW = range(4)


@dataclass(frozen=True)
class Counts:
    """Steps so far that were applied, skipped for loss or norm that is not finite, skipped for a spike; and the skipped
    ones since the last that was applied."""

    accepted: int = 0
    broken: int = 0
    spikes: int = 0
    in_a_row: int = 0

    @property
    def skipped(self) -> int:
        """Return the steps that were not applied."""
        return self.broken + self.spikes


class Watch:
    """Says which steps are applied: all processes alike, since it looks at what all of them have."""

    def __init__(self, device: torch.device, world: int, spike: float) -> None:
        """spike: how many running medians a norm may have; 0: any."""
        self.world, self.spike = world, spike
        self.norms_M = torch.zeros(REMEMBERED, device=device)
        self.counts_4 = torch.zeros(4, dtype=torch.int64, device=device)
        self._seen: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()
        self.counts = Counts()

    def check(self, loss: Tensor, norm: Tensor) -> tuple[Tensor, Tensor]:
        """Return (loss, the mean over all processes; whether the step may be applied), both () on the device.

        loss: this process's, (). norm: of the gradients that all processes share, (). A number that is not finite on
        one process is so on all.
        """
        loss = loss.detach().clone()
        if self.world > 1:
            torch.distributed.all_reduce(loss)
            loss = loss / self.world
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        good = finite & ~self._is_spike(norm)
        accepted = self.counts_4[ACCEPTED]
        place = (accepted % REMEMBERED)[None]
        self.norms_M.scatter_(
            0, place, torch.where(good, norm.detach().float(), self.norms_M.gather(0, place)[0])[None]
        )
        self.counts_4 = torch.stack(
            (
                accepted + good,
                self.counts_4[BROKEN] + ~finite,
                self.counts_4[SPIKES] + (finite & ~good),
                torch.where(good, 0, self.counts_4[IN_A_ROW] + 1),
            )
        )
        self._send()
        return loss, good

    def _is_spike(self, norm: Tensor) -> Tensor:
        """Tell, on the device, whether the norm is more than `spike` medians of those remembered."""
        if not self.spike:
            return torch.zeros((), dtype=torch.bool, device=norm.device)
        accepted = self.counts_4[ACCEPTED].clamp(max=REMEMBERED)
        filled_M = torch.arange(REMEMBERED, device=norm.device) < accepted
        sorted_M = torch.where(filled_M, self.norms_M, torch.inf).sort().values
        median = sorted_M[((accepted - 1) // 2).clamp(min=0)]
        return (accepted >= ENOUGH) & (norm > self.spike * median)

    def _send(self) -> None:
        """Have the counts copied to the host."""
        if self.counts_4.device.type != "cuda":
            self._seen.append((self.counts_4, None))
            return
        copy = torch.empty(4, dtype=torch.int64, pin_memory=True)
        copy.copy_(self.counts_4, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._seen.append((copy, event))

    def look(self, *, wait: bool = False) -> Counts:
        """Return the counts as far as they have arrived; with `wait`, those of the last step."""
        while self._seen:
            copy, event = self._seen[0]
            if event is not None and not wait and not event.query():  # type: ignore[no-untyped-call]
                break
            if event is not None:
                event.synchronize()
            self.counts = Counts(*(int(number) for number in copy.tolist()))
            self._seen.popleft()
        return self.counts

    def state(self) -> dict[str, list[float] | list[int]]:
        """Return what a checkpoint keeps of it, as plain numbers."""
        return {"norms": self.norms_M.tolist(), "counts": self.counts_4.tolist()}

    def load(self, state: dict[str, list[float] | list[int]]) -> None:
        """Go on from `state`; steps skipped in a row are counted anew."""
        device = self.norms_M.device
        self.norms_M = torch.tensor(state["norms"], dtype=torch.float32, device=device)
        self.counts_4 = torch.tensor([*state["counts"][:IN_A_ROW], 0], dtype=torch.int64, device=device)
        self._seen.clear()
        self.counts = Counts(*(int(number) for number in self.counts_4.tolist()))


def apply(optimizers: Iterable[torch.optim.Optimizer], good: Tensor) -> None:
    """Take the optimizers' step where `good`, () on the device, holds; drop the gradients either way.

    On a GPU a fused optimizer is told on the device (`found_inf`, by which torch's GradScaler skips steps): nothing
    waits. Others are asked for on the host.
    """
    for optimizer in optimizers:
        if good.device.type == "cuda" and all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf = (~good).float()  # type: ignore[attr-defined]
            optimizer.step()
        elif bool(good):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
