"""Measure the loss on pictures that are never trained on, over all and by the source of the caption."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.loading.batch import Batch
from pipeline.loading.loader import Loader

Collate = Callable[[Batch, slice], tuple[Any, ...]]
"""A part of a batch -> codes (B, N) and condition on the device, and whatever else the model is told."""
PART = 64
"""Pictures of a forward pass and process."""


@dataclass(frozen=True)
class Validation:
    """The mean loss in nats per code over `pictures`, and (loss, pictures) by source: whose caption was drawn."""

    loss: float
    pictures: int
    by_source: dict[str, tuple[float, int]]

    def record(self, step: int) -> dict[str, object]:
        """Return the line of metrics.jsonl."""
        sources = {source: round(loss, 6) for source, (loss, _) in self.by_source.items()}
        return {"step": step, "validation_loss": round(self.loss, 6), "by_source": sources, "pictures": self.pictures}

    def line(self) -> str:
        """Return it as a progress line says it."""
        sources = ", ".join(f"{source} {loss:.3f} ({count:,})" for source, (loss, count) in self.by_source.items())
        return f"validation {self.loss:.3f} on {self.pictures:,} pictures{f': {sources}' if sources else ''}"


@dataclass(frozen=True)
class HeldOut:
    """What is measured, and by how many processes."""

    loader: Loader
    pictures: int
    """So many, the first of epoch 0: each time the same, with the same crop and caption."""
    world: int
    rank: int

    @torch.no_grad()
    def measure(self, nats: Callable[..., Tensor], collate: Collate) -> Validation:
        """Return the loss. nats: what `collate` gives -> (B,), in nats per code.

        Every process takes as many forward passes as the others; one without pictures left repeats the first of all,
        uncounted.
        """
        part, totals = min(PART, -(-self.pictures // self.world)), dict[str, tuple[float, int]]()
        stride = part * self.world
        for turn in range(-(-self.pictures // stride)):
            start = turn * stride + self.rank * part
            stop = min(start + part, self.pictures)
            batch = self.loader.batch(start, stop) if start < stop else self.loader.batch(0, 1)
            nats_B = nats(*collate(batch, slice(len(batch)))).double().cpu().tolist()
            for source, loss in zip(batch.sources_B, nats_B, strict=True) if start < stop else ():
                before, count = totals.get(source, (0.0, 0))
                totals[source] = before + loss, count + 1
        return _summed(self._gathered(totals))

    def _gathered(self, totals: dict[str, tuple[float, int]]) -> list[dict[str, tuple[float, int]]]:
        if self.world == 1:
            return [totals]
        every: list[dict[str, tuple[float, int]] | None] = [None] * self.world
        torch.distributed.all_gather_object(every, totals)
        return [one for one in every if one is not None]


def _summed(every: list[dict[str, tuple[float, int]]]) -> Validation:
    """Return what all processes measured, sources in order of name."""
    both: dict[str, tuple[float, int]] = {}
    for totals in every:
        for source, (loss, count) in totals.items():
            before, counted = both.get(source, (0.0, 0))
            both[source] = before + loss, counted + count
    pictures = sum(count for _, count in both.values())
    by_source = {source: (both[source][0] / both[source][1], both[source][1]) for source in sorted(both) if source}
    return Validation(sum(loss for loss, _ in both.values()) / pictures, pictures, by_source)
