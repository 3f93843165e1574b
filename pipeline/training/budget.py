"""Say before the first step what a training run takes: parameters, memory of a card, steps, hours; refuse what does not
fit."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.gpt_spec import GPTSpec, parameters
from pipeline.recipes.schema import RecipeError
from pipeline.recipes.train import TrainConfig

GB = 1e9
SPARE = 0.93
"""Share of a card's memory that a run may count on: the rest is the driver's, the allocator's gaps, the exchange's."""
MOST_CARDS = 1024
FEW = 8
"""Pictures at once below which activations are rather computed again."""


@dataclass(frozen=True)
class Plan:
    """One way to train a model: how many cards, how the states lie, what a card computes at once."""

    spec: GPTSpec
    world: int
    parallel: str
    """"ddp" or "fsdp"."""
    micro_batch: int
    """Pictures of a card's forward pass."""
    checkpointed: bool
    """Activations of a layer are computed again on the way back."""
    bf16: bool
    ema: bool
    text: float = 0.0
    """Bytes of a text encoder beside the model."""

    @property
    def states(self) -> float:
        """Return the bytes of a card for weights, gradients, AdamW's two moments and the running average.

        All are float32: 16 bytes a parameter, 20 with an average. DDP holds all, FSDP a share. Beside them lies what
        autocast converts: 2 bytes a parameter, of FSDP those of two layers.
        """
        count, share = parameters(self.spec), self.world if self.parallel == "fsdp" else 1
        whole = count * (20.0 if self.ema else 16.0) / share
        gathered = 2 * (4 * self.spec.dim**2 + 3 * self.spec.dim * self.spec.ffn_dim)
        return whole + (2.0 if self.bf16 else 0.0) * (count if share == 1 else gathered)

    @property
    def activations(self) -> float:
        """Return about the bytes of a card for what a forward pass leaves for the way back.

        Per position and layer, the residual in float32, the rest in the layers' precision of b bytes: (16 + 11 b) D
        for norms, projections, rotations and dropout, 4 b F of the feed-forward's width F; with activation
        checkpointing 4 D and one layer whole. Per code b + 8 bytes for each of V logits. Counted from the code, not
        measured.
        """
        spec, width = self.spec, 2 if self.bf16 else 4
        positions = self.micro_batch * (spec.prefix + spec.grid**2 - 1)
        layer = (16 + 11 * width) * spec.dim + 4 * width * spec.ffn_dim
        layers = 4 * spec.dim * spec.layers + layer if self.checkpointed else layer * spec.layers
        return float(positions * layers + self.micro_batch * spec.grid**2 * spec.vocab * (width + 8))

    @property
    def total(self) -> float:
        """Return about the bytes of a card in all."""
        return self.states + self.activations + self.text

    def lines(self) -> list[str]:
        """Return it as the trainer prints it."""
        how = f"{self.parallel} on {self.world}" if self.world > 1 else "one process"
        kept = " with activation checkpointing" if self.checkpointed else ""
        text = f" + text encoder {self.text / GB:.1f}" if self.text else ""
        return [
            f"memory of each process ({how}): about {self.total / GB:.1f} GB: states {self.states / GB:.1f}"
            f" ({parameters(self.spec) / 1e6:,.1f} M parameters: weights, gradients, optimizer"
            f"{', running average' if self.ema else ''}) + activations {self.activations / GB:.1f} ({self.micro_batch}"
            f" pictures at once{kept}){text}"
        ]


def plan_of(config: TrainConfig, spec: GPTSpec, world: int, bf16: bool) -> Plan:
    """Return the plan that a recipe asks for on so many cards."""
    share = max(1, config.batch // world)
    text = 2.44e9 if config.condition == "text" and config.text == "t5" else 0.0  # flan-T5-XL's encoder in bf16
    return Plan(
        spec=spec,
        world=world,
        parallel=config.parallel,
        micro_batch=min(config.micro_batch or share, share),
        checkpointed=config.activation_checkpointing,
        bf16=bf16,
        ema=config.ema > 0,
        text=text,
    )


def check_fits(plan: Plan, memory: float, batch: int) -> None:
    """Raise RecipeError for a plan that takes more than `memory` bytes of a card, with settings that fit."""
    if plan.total <= SPARE * memory:
        return
    says = (
        f"this run takes about {plan.total / GB:.0f} GB of each card, which has {memory / GB:.0f} GB: states"
        f" {plan.states / GB:.0f}, activations {plan.activations / GB:.0f}"
    )
    fitting = next((other for other in alternatives(plan, batch) if other.total <= SPARE * memory), None)
    if fitting is None:
        raise RecipeError(f"{says}; no setting on up to {MOST_CARDS} cards fits: take a smaller train.model")
    raise RecipeError(f"{says}; this fits, in about {fitting.total / GB:.0f} GB: {_settings(plan, fitting)}")


def alternatives(plan: Plan, batch: int) -> Iterator[Plan]:
    """Yield other ways, those that change least first: fewer pictures at once, activations computed again, more cards.
    Fewer than FEW at once, which leave a card idle, come last of all for so many cards."""
    world = plan.world
    while world <= max(MOST_CARDS, plan.world):
        ways = [
            replace(plan, world=world, parallel=parallel, checkpointed=checkpointed, micro_batch=size)
            for parallel in dict.fromkeys((plan.parallel, "fsdp" if world > 1 else plan.parallel))
            for checkpointed in sorted({plan.checkpointed, True})
            for size in _halves(min(plan.micro_batch, max(1, batch // world)))
        ]
        yield from sorted(ways, key=lambda way: way.micro_batch < FEW)
        world = world * 2 if batch % (world * 2) == 0 else MOST_CARDS * 2


def _halves(size: int) -> list[int]:
    """Return a size, its half, and so on down to 1."""
    return [size >> shift for shift in range(size.bit_length())]


def _settings(plan: Plan, fitting: Plan) -> str:
    """Return what to change, as options and the number of processes."""
    cards = f"on {fitting.world} cards (torchrun --nproc-per-node {min(fitting.world, 8)})"
    changes = {
        f"--set train.parallel={fitting.parallel}": fitting.parallel != plan.parallel,
        "--set train.activation_checkpointing=true": fitting.checkpointed and not plan.checkpointed,
        f"--set train.micro_batch={fitting.micro_batch}": fitting.micro_batch != plan.micro_batch,
        cards: fitting.world != plan.world,
    }
    return " ".join(words for words, changed in changes.items() if changed)


def hours(metrics: Path, batch: int, steps: int) -> str:
    """Return how long so many steps take at the rate of a run's metrics.jsonl, or that none was measured."""
    rate = None
    if metrics.is_file():
        for line in metrics.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]:
            try:
                rate = float(json.loads(line)["samples_per_s"])
            except (ValueError, KeyError, TypeError):
                continue
    if not rate:
        return f"{steps:,} steps of {batch} pictures; how long they take is known after the first progress line"
    took = steps * batch / rate / 3600
    return f"{steps:,} steps of {batch} pictures: {took:,.1f} h at the {rate:,.1f} samples/s of the last line"
