"""Let a GPT in training draw: prompts to codes to pictures, sample sheets, and the recall of its training set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from manifests.files import write_json
from manifests.shards import read_shard
from pipeline.features import TextFeatures, left_pad
from pipeline.gpt import GPT
from pipeline.loader import Example
from pipeline.preview import Grid, Row, save_grid
from pipeline.recall import Recall, measure_recall
from pipeline.sample import Sampling, generate
from tokenize_shards.images import center_crop, to_uint8
from tokenize_shards.vq import LoadedVQ

CHUNK = 32
SHEET_ROWS, SHEET_SAMPLES = 12, 3


@dataclass(frozen=True)
class Studio:
    """What it takes to draw."""

    gpt: GPT
    text: TextFeatures
    vq: LoadedVQ
    sampling: Sampling

    @property
    def note(self) -> str:
        """Return the line under every sheet: what drew it, stand-ins named."""
        settings = self.sampling
        return (
            f"tokenizer {self.vq.weights.label}; text {self.text.label}; "
            f"cfg {settings.cfg_scale:g}, top-k {settings.top_k or 'all'}, temperature {settings.temperature:g}, "
            f"top-p {settings.top_p:g}, seed {settings.seed}"
        )

    def draw(self, prompts: Sequence[str], seed: int) -> Tensor:
        """Return codes (B, N) on the CPU; prompt b draws from its own stream, seed + b."""
        n_tokens = self.gpt.spec.grid**2
        drawn = []
        for start in range(0, len(prompts), CHUNK):
            features_BTC, lengths_B = left_pad(self.text.features(list(prompts[start : start + CHUNK])), self.gpt.spec.cond_len)
            condition = (torch.from_numpy(features_BTC), torch.from_numpy(lengths_B))
            drawn.append(generate(self.gpt, condition, n_tokens, replace(self.sampling, seed=seed + start)).cpu())
        return torch.cat(drawn)

    def decode(self, codes_BN: Tensor) -> Tensor:
        """Return pixels (B, 3, H, W) in [-1, 1]."""
        with torch.no_grad():
            return self.vq.vq.decode(codes_BN.to(next(self.vq.vq.parameters()).device))

    def pictures(self, codes_BN: Tensor) -> list[Image.Image]:
        """Return the codes as pictures."""
        return [Image.fromarray(pixels) for chunk in torch.split(codes_BN, CHUNK) for pixels in to_uint8(self.decode(chunk))]

    def sheet(self, path: Path, prompts: Sequence[str], step: int) -> None:
        """Write a grid of prompts and three samples each."""
        columns = [self.pictures(self.draw(prompts, self.sampling.seed + 1000 * n)) for n in range(SHEET_SAMPLES)]
        rows = [Row(prompt, pictures) for prompt, pictures in zip(prompts, zip(*columns, strict=True), strict=True)]
        save_grid(path, Grid(f"samples at step {step}", [f"sample {n + 1}" for n in range(SHEET_SAMPLES)], rows, self.note))

    def recall(self, folder: Path, training: Sequence[Example], count: int, pairs: Path) -> Recall:
        """Draw the captions of the first `count` training pictures, measure what comes back; write memorised.png and .json."""
        codes_MN = torch.from_numpy(np.stack([example.codes_N for example in training]).astype(np.int64))
        shown = training[:count]
        prompts = [example.caption for example in shown]
        drawn_BN = self.draw(prompts, self.sampling.seed)
        found = measure_recall(drawn_BN, codes_MN, range(len(shown)), self.decode)
        write_json(folder / "memorised.json", {**found.record(), "drawn_by": self.note})
        self._recall_sheet(folder / "memorised.png", shown[:SHEET_ROWS], drawn_BN[:SHEET_ROWS], (found, pairs))
        return found

    def _recall_sheet(self, path: Path, shown: Sequence[Example], drawn_BN: Tensor, context: tuple[Recall, Path]) -> None:
        found, pairs = context
        codes_BN = torch.from_numpy(np.stack([example.codes_N for example in shown]).astype(np.int64))
        rebuilt = self.pictures(codes_BN)
        originals = stored_pictures(pairs, [example.uid for example in shown], rebuilt[0].width)
        prompts = [example.caption for example in shown]
        samples = [
            self.pictures(drawn_BN),
            *(self.pictures(self.draw(prompts, self.sampling.seed + 1000 * n)) for n in range(1, SHEET_SAMPLES)),
        ]
        rows = [
            Row(example.caption, [originals.get(example.uid), rebuilt[n], *(column[n] for column in samples)])
            for n, example in enumerate(shown)
        ]
        columns = ["picture", "from its codes", *(f"sample {n + 1}" for n in range(SHEET_SAMPLES))]
        save_grid(path, Grid("What the GPT gives back of its training set", columns, rows, " ".join([*found.lines(), self.note])))


def stored_pictures(pairs: Path, uids: Sequence[str], size: int) -> dict[str, Image.Image]:
    """Return the fetched pictures of these uids, cropped to `size` pixels, as far as RUN/pairs still has them."""
    from filters.fetch.images import ImageFault, ImageLimits, open_picture  # the one gate for foreign bytes

    wanted, found = set(uids), dict[str, Image.Image]()
    for path in sorted(pairs.glob("*.tar")):
        for key, parts in read_shard(path):
            if key in wanted and "jpg" in parts:
                try:
                    found[key] = center_crop(open_picture(parts["jpg"], ImageLimits()), size)
                except ImageFault:
                    continue
        if len(found) == len(wanted):
            break
    return found
