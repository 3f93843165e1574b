"""Decode codes one position at a time over a static key-value cache, each row at a position of its own.

A row of the cache holds its caption's real tokens from place 0 on, its codes behind them; what lies beyond is not seen.
So rows with captions of different lengths, and rows that began at different times, share one step of one shape.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.gpt import GPT, Prompt, Span


class _Prefill:
    """Keeps the keys and values of whole prompts in some rows; their queries see this call's alone."""

    def __init__(self, decoder: "Decoder", rows_R: Tensor) -> None:
        self.decoder, self.rows_R = decoder, rows_R

    def put(self, layer: int, k_BHSK: Tensor, v_BHSK: Tensor) -> tuple[Tensor, Tensor]:
        width = k_BHSK.shape[2]
        self.decoder.k_LBHPK[layer, self.rows_R, :, :width] = k_BHSK
        self.decoder.v_LBHPK[layer, self.rows_R, :, :width] = v_BHSK
        return k_BHSK, v_BHSK


class _Step:
    """Writes one position of each row, and shows the first `seen` places."""

    def __init__(self, k_LBHPK: Tensor, v_LBHPK: Tensor, used_B: Tensor, seen: int) -> None:
        self.k_LBHPK, self.v_LBHPK, self.used_B, self.seen = k_LBHPK, v_LBHPK, used_B, seen
        self.rows_B = torch.arange(len(used_B), device=used_B.device)

    def put(self, layer: int, k_BHSK: Tensor, v_BHSK: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(self.used_B)
        self.k_LBHPK[layer, self.rows_B, :, self.used_B] = k_BHSK[:, :, 0]
        self.v_LBHPK[layer, self.rows_B, :, self.used_B] = v_BHSK[:, :, 0]
        return self.k_LBHPK[layer, :batch, :, : self.seen], self.v_LBHPK[layer, :batch, :, : self.seen]


class Decoder:
    """A cache of `rows` rows for one GPT in eval mode: fill rows with prompts, then advance the first so many."""

    def __init__(self, gpt: GPT, rows: int, n_tokens: int, *, compiled: bool = False) -> None:
        """n_tokens: codes that a row gets at most. compiled: the step is compiled as one graph, on a GPU replayed as a
        CUDA graph; it then always sees the whole cache, so that its shapes stand."""
        spec, weight = gpt.spec, gpt.tok_embeddings.weight
        shape = (spec.layers, rows, spec.heads, spec.prefix + n_tokens, spec.head_dim)
        self.gpt, self.places = gpt, shape[3]
        self.k_LBHPK, self.v_LBHPK = weight.new_zeros(shape), weight.new_zeros(shape)
        self.used_B = torch.zeros(rows, dtype=torch.int64, device=weight.device)
        self.codes_B = torch.zeros(rows, dtype=torch.int64, device=weight.device)
        self._used = [0] * rows  # places that each row has used at most, known without asking the device; 0: idle
        self.compiled = compiled
        self._step: Callable[..., Tensor] = self._advance
        if compiled:
            for kept in (self.k_LBHPK, self.v_LBHPK):
                torch._dynamo.mark_static_address(kept)
            mode = "reduce-overhead" if weight.device.type == "cuda" else "default"
            self._step = torch.compile(self._advance, fullgraph=True, dynamic=False, mode=mode)

    @torch.no_grad()
    def fill(self, rows: list[int], prompt: Prompt) -> Tensor:
        """Read the prompts, (R, T, D), into these rows; return the logits (R, V) of their first codes."""
        x_RTD, gpt = prompt.x_BTD, self.gpt
        width, device = x_RTD.shape[1], x_RTD.device
        pad_R = torch.zeros(len(rows), dtype=torch.int64, device=device) if prompt.pad_B is None else prompt.pad_B
        first_R = pad_R.clamp(max=width - 1)  # a caption without a token: its last place, which nothing else sees
        place_RT = (torch.arange(width, device=device) + first_R[:, None]) % width
        table_RT = place_RT + (gpt.spec.prefix - width)
        cos_RTR, sin_RTR = (table[table_RT][:, None] for table in (gpt.rope_cos_PR, gpt.rope_sin_PR))
        rows_R = torch.tensor(rows, device=device)
        h_RTD = gpt.through(
            x_RTD.gather(1, place_RT[:, :, None].expand_as(x_RTD)),
            Span(cos_RTR, sin_RTR, cache=_Prefill(self, rows_R)),
        )
        self.used_B[rows_R], self.codes_B[rows_R] = width - pad_R, 0
        for row in rows:
            self._used[row] = width
        last_R11 = (width - 1 - first_R)[:, None, None].expand(-1, 1, h_RTD.shape[2])
        return gpt.predict(h_RTD.gather(1, last_R11))[:, 0]

    @torch.no_grad()
    def advance(self, codes_B: Tensor) -> Tensor:
        """Read one more code in each of the first B rows; return the logits (B, V) of the next. Rows that nobody uses
        may be among them."""
        batch = len(codes_B)
        self._used[:batch] = [min(self.places, used + 1) if used else 0 for used in self._used[:batch]]
        seen = self.places if self.compiled else max(1, *self._used[:batch])
        logits_BV = self._step(codes_B, self.used_B[:batch], self.codes_B[:batch], seen)
        self.used_B[:batch] = (self.used_B[:batch] + 1).clamp(max=self.places - 1)
        self.codes_B[:batch] = (self.codes_B[:batch] + 1).clamp(max=self.gpt.spec.grid**2 - 1)
        return logits_BV

    def leave(self, rows: list[int]) -> None:
        """Let rows go: what they hold is written over by the next that takes them."""
        for row in rows:
            self._used[row] = 0

    def _advance(self, codes_B: Tensor, used_B: Tensor, number_B: Tensor, seen: int) -> Tensor:
        gpt = self.gpt
        table_B = number_B + gpt.spec.prefix
        cos_B11R, sin_B11R = (table[table_B][:, None, None] for table in (gpt.rope_cos_PR, gpt.rope_sin_PR))
        mask_B11P = (torch.arange(seen, device=used_B.device) <= used_B[:, None])[:, None, None]
        cache = _Step(self.k_LBHPK, self.v_LBHPK, used_B, seen)
        h_B1D = gpt.through(gpt.tok_embeddings(codes_B)[:, None], Span(cos_B11R, sin_B11R, mask_B11P, cache))
        return gpt.predict(h_B1D)[:, 0]
