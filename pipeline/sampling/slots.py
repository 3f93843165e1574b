"""Draw pictures that begin and end at different times in one decode: continuous batching over a fixed number of slots.

Each slot has its own prompt, seed and settings, and stands at its own code; what is drawn in it is what `generate`
draws for it alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.gpt import GPT, Condition
from pipeline.sampling.decode import Decoder
from pipeline.sampling.generate import both
from pipeline.sampling.pick import Choices, Sampling, guide, pick, uniforms

IDLE = Sampling(cfg_scale=1.0)


@dataclass
class _Drawn:
    """What the host knows of a slot's picture."""

    sampling: Sampling
    n_tokens: int
    drawn: int = 0

    @property
    def left(self) -> int:
        """Return how many codes are still to be drawn."""
        return self.n_tokens - self.drawn


class Slots:
    """A static cache of `slots` pictures, each with a second row for guidance; for one thread."""

    def __init__(self, gpt: GPT, slots: int, n_tokens: int | None = None, *, compiled: bool = False) -> None:
        """n_tokens: codes of a picture at most; none: the model's grid. compiled: as in `Decoder`.

        The model is put in eval mode. Raises ValueError for fewer than one slot, or more codes than the grid holds.
        """
        limit = gpt.spec.grid**2
        self.n_tokens = limit if n_tokens is None else n_tokens
        if slots < 1 or not 1 <= self.n_tokens <= limit:
            raise ValueError(f"{slots} slots of {self.n_tokens} codes: wanted at least 1 of 1 to {limit}")
        self.gpt, self.slots = gpt.eval(), slots
        self.decoder = Decoder(gpt, 2 * slots, self.n_tokens, compiled=compiled)
        self.device = gpt.tok_embeddings.weight.device
        self._logits_RV = torch.zeros(2 * slots, gpt.spec.vocab, device=self.device)
        self._draws_SN = torch.zeros(slots, self.n_tokens, dtype=torch.float64, device=self.device)
        self._in: dict[int, _Drawn] = {}
        self._choices = Choices.of([IDLE] * slots, self.device)

    @property
    def free(self) -> list[int]:
        """Return the slots that nobody has joined."""
        return [slot for slot in range(self.slots) if slot not in self._in]

    @torch.no_grad()
    def join(self, slot: int, condition: Condition, sampling: Sampling, n_tokens: int | None = None) -> None:
        """Begin a picture in a free slot. condition: of one row. n_tokens: how many codes; none: all.

        Raises ValueError for a slot that is taken or that there is not, and for a condition that does not fit.
        """
        wanted = self.n_tokens if n_tokens is None else n_tokens
        if slot not in self.free or not 1 <= wanted <= self.n_tokens:
            raise ValueError(
                f"slot {slot}, {wanted} codes: wanted a free slot (now {self.free}), 1 to {self.n_tokens} codes"
            )
        self.gpt.check_condition(condition)
        prompt, rows = self.gpt.embed(condition), [slot, self.slots + slot]
        if len(prompt.x_BTD) != 1:
            raise ValueError(f"a slot draws one picture, got a condition of {len(prompt.x_BTD)} rows")
        self._logits_RV[rows] = self.decoder.fill(rows, both(prompt, self.gpt.embed(condition, null=True)))
        self._draws_SN[slot, :wanted] = uniforms(1, wanted, sampling.seed)[0].to(self.device)
        self._in[slot] = _Drawn(sampling, wanted)
        self._settle()

    def leave(self, slot: int) -> None:
        """Free a slot, whether its picture is whole or not. Raises ValueError for one that is free."""
        if slot not in self._in:
            raise ValueError(f"slot {slot} is free; taken are {sorted(self._in)}")
        del self._in[slot]
        self.decoder.leave([slot, self.slots + slot])
        self._settle()

    def left(self, slot: int) -> int:
        """Return how many codes a slot's picture still lacks."""
        return self._in[slot].left

    @torch.no_grad()
    def step(self) -> dict[int, int]:
        """Draw the next code in every slot whose picture lacks one; return slot -> code."""
        active = {slot: one for slot, one in self._in.items() if one.left}
        if not active:
            return {}
        place_S1 = torch.tensor([[active[slot].drawn if slot in active else 0] for slot in range(self.slots)])
        draws_S = self._draws_SN.gather(1, place_S1.to(self.device))[:, 0]
        codes_S = pick(self._guided(active), draws_S, self._choices)
        for one in active.values():
            one.drawn += 1
        going = [one for one in active.values() if one.left]
        if going:
            both_rows = any(one.drawn < one.sampling.guided_until(one.n_tokens) for one in going)
            logits_RV = self.decoder.advance(codes_S.repeat(2) if both_rows else codes_S)
            self._logits_RV[: len(logits_RV)] = logits_RV  # a CUDA graph writes over its own output
        codes = codes_S.tolist()
        return {slot: codes[slot] for slot in sorted(active)}

    def _guided(self, active: dict[int, _Drawn]) -> Tensor:
        """Return the logits (S, V) to pick from: guided in the slots whose interval holds their next code."""
        cond_SV, null_SV = self._logits_RV.chunk(2)
        scales = [
            active[slot].sampling.cfg_scale
            if slot in active and active[slot].sampling.guided(active[slot].drawn)
            else 1
            for slot in range(self.slots)
        ]
        if all(scale == 1 for scale in scales):
            return cond_SV
        scale_S1 = torch.tensor(scales, dtype=torch.float32, device=self.device)[:, None]
        return torch.where(scale_S1 != 1, guide(cond_SV, null_SV, scale_S1), cond_SV)

    def _settle(self) -> None:
        """Take the settings of the slots that are taken now."""
        rows = [self._in[slot].sampling if slot in self._in else IDLE for slot in range(self.slots)]
        self._choices = Choices.of(rows, self.device)
