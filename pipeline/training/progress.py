"""Measure a training run's speed: pictures and tokens a second, the share of the card's arithmetic, of waiting."""

import resource
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.execution.progress import clock
from pipeline.gpt_spec import GPTSpec, parameters

PEAK_FLOPS = {
    "B200": 2250e12, "H200": 989e12, "H100": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12,
    "L4": 121e12, "A10G": 125e12, "A10": 125e12, "V100": 125e12, "RTX 4090": 165e12, "RTX 3090": 71e12, "T4": 65e12,
}  # fmt: skip
"""Dense arithmetic of 16-bit numbers a second, from NVIDIA's data sheets (SXM where there are several)."""


def peak_flops(card: str) -> float | None:
    """Return the arithmetic a second of a card by its name, None for one that is not known."""
    names = sorted((name for name in PEAK_FLOPS if name in card), key=len)
    return PEAK_FLOPS[names[-1]] if names else None


def picture_flops(spec: GPTSpec, text_tokens: int) -> float:
    """Return the arithmetic of one picture's forward and backward pass.

    6 P S + 12 L D S^2 (PaLM, arXiv 2204.02311, appendix B) for P parameters, S positions, L layers of width D; the
    causal half of attention counts whole, as there. Recomputed activations do not count.
    """
    positions = text_tokens + spec.grid**2 - 1
    return 6.0 * parameters(spec) * positions + 12.0 * spec.layers * spec.dim * positions**2


@dataclass(frozen=True)
class Speed:
    """What a progress line says of the steps since the last one."""

    loss: float
    tokens_per_s: float
    samples_per_s: float
    mfu: float | None
    loader_share: float
    memory_gb: float
    done_s: float
    left_s: float

    def words(self) -> str:
        """Return it as a progress line says it."""
        mfu = "" if self.mfu is None else f"  MFU {self.mfu:.1%}"
        return (
            f"{self.samples_per_s:,.1f} samples/s  {self.tokens_per_s:,.0f} tokens/s{mfu}  loader"
            f" {self.loader_share:.1%}  {self.memory_gb:.1f} GB  {clock(self.done_s)}  ETA {clock(self.left_s)}"
        )

    def record(self) -> dict[str, float | None]:
        """Return what a line of metrics.jsonl says of it."""
        return {
            "tokens_per_s": round(self.tokens_per_s),
            "samples_per_s": round(self.samples_per_s, 2),
            "mfu": None if self.mfu is None else round(self.mfu, 4),
            "loader_share": round(self.loader_share, 4),
            "memory_gb": round(self.memory_gb, 3),
        }


@dataclass
class Meter:
    """Loss and speed since the last progress line; the loss stays on the device until it is asked for."""

    device: torch.device
    batch: int
    """Pictures of a step, over all processes."""
    tokens: int
    """Codes of a picture."""
    started: float = field(default_factory=lambda: time.monotonic())
    since: float = field(default_factory=lambda: time.monotonic())
    steps: int = 0
    waited: float = 0.0
    flops: float = 0.0
    """Arithmetic of this process's share of the steps."""
    loss: Tensor | float = 0.0
    counted: Tensor | float = 0.0

    def add(self, loss: Tensor, good: Tensor) -> None:
        """Count one step; the loss of one that was skipped counts in no mean."""
        self.steps += 1
        self.loss = self.loss + torch.where(good, loss, 0.0)
        self.counted = self.counted + good.float()

    def read(self, left: int) -> Speed:
        """Return the speed of the steps since the last call, and begin anew; `left` steps are to come."""
        loss, counted = float(self.loss), float(self.counted)
        now = time.monotonic()
        pace = max(1e-9, (now - self.since) / max(1, self.steps))
        peak = peak_flops(torch.cuda.get_device_name(self.device)) if self.device.type == "cuda" else None
        speed = Speed(
            loss=loss / counted if counted else float("nan"),
            tokens_per_s=self.batch * self.tokens / pace,
            samples_per_s=self.batch / pace,
            mfu=None if peak is None else self.flops / max(1e-9, now - self.since) / peak,
            loader_share=min(1.0, self.waited / max(1e-9, now - self.since)),
            memory_gb=_memory(self.device),
            done_s=now - self.started,
            left_s=pace * left,
        )
        self.since, self.steps, self.waited, self.flops, self.loss, self.counted = now, 0, 0.0, 0.0, 0.0, 0.0
        return speed


def _memory(device: torch.device) -> float:
    """Return the most memory that was held, of the card or else of this process, in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
