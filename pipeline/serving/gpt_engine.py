"""Draw with a GPT: its slots of one decode, its text features, its tokenizer."""

import io
import json
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from pipeline.sampling.pick import Sampling
from pipeline.sampling.slots import Slots
from pipeline.serving.engine import Facts
from pipeline.serving.wish import Wish
from pipeline.training.studio import Studio

CHUNK = "tessera"
"""The PNG's text of this name says what drew the picture, and how, as JSON."""


class GPTEngine:
    """An `Engine` over a studio. Build it in the thread that calls it: CUDA graphs belong to a thread."""

    def __init__(self, studio: Studio, slots: int, *, compiled: bool = False, beside: str = "") -> None:
        """compiled: the step is compiled now, which takes a while, and is then replayed. beside: the folder that the
        checkpoint lies in, which neither the page nor a PNG tells."""
        spec, says = studio.gpt.spec, studio.says.replace(f"{beside}/", "") if beside else studio.says
        self.studio, self.slots = studio, slots
        self.facts = Facts(says, spec.classes if spec.condition == "class" else None, spec.grid, studio.size)
        self._slots = Slots(studio.gpt, slots, compiled=compiled)
        if compiled:
            self._warm()

    def join(self, slot: int, wish: Wish) -> None:
        """Begin a picture in a free slot. Raises ValueError for a wish that cannot be drawn."""
        self._slots.join(slot, self.studio.of([wish.text]), wish.sampling)

    def step(self) -> dict[int, int]:
        """Draw the next code in every taken slot whose picture lacks one; return slot -> code."""
        return self._slots.step()

    def leave(self, slot: int) -> None:
        """Free a slot, whether its picture is whole or not."""
        self._slots.leave(slot)

    def picture(self, codes: Sequence[int], wish: Wish) -> bytes:
        """Return the PNG of a whole picture, or of its whole rows so far, transparent below them.

        What is not drawn yet is taken to go on as the last row: the tokenizer decodes whole pictures only.
        """
        grid = self.facts.grid
        rows_RN = np.asarray(codes, np.int64)[: len(codes) // grid * grid].reshape(-1, grid)
        whole_RN = np.concatenate([rows_RN, np.repeat(rows_RN[-1:], grid - len(rows_RN), axis=0)])
        pixels_HWC = self.studio.pixels(torch.from_numpy(whole_RN.reshape(1, -1)))[0]
        if len(rows_RN) < grid:
            alpha_HW1 = np.zeros((*pixels_HWC.shape[:2], 1), np.uint8)
            alpha_HW1[: len(rows_RN) * (self.facts.size // grid)] = 255
            pixels_HWC = np.concatenate([pixels_HWC, alpha_HW1], axis=2)
        said = PngImagePlugin.PngInfo()
        said.add_itxt(CHUNK, json.dumps({**wish.record(), "model": self.facts.says}))
        out = io.BytesIO()
        Image.fromarray(pixels_HWC).save(out, "PNG", pnginfo=said)
        return out.getvalue()

    def _warm(self) -> None:
        """Compile both forms of the step, with guidance and without, before anybody waits for them."""
        text = "0" if self.facts.classes is not None else "a picture"
        for scale in (2.0, 1.0):
            self.join(0, Wish(text, Sampling(cfg_scale=scale)))
            for _ in range(3):
                self.step()
            self.leave(0)
