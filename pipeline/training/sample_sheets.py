"""Let a GPT in training draw: prompts to codes to pictures, sample sheets, and the recall of its training set."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from manifests.files import read_json, write_json
from manifests.stored_pictures import may_hold, stored_pictures
from pipeline.evaluation.plots import Grid, Row, save_grid
from pipeline.evaluation.recall import Recall, measure_recall
from pipeline.gpt import GPT
from pipeline.loading.batch import Batch
from pipeline.sampling.generate import Sampling, generate
from pipeline.training.conditions import Conditioner
from pipeline.training.job import Job
from tokenize_shards.images import center_crop, to_uint8
from tokenize_shards.vq import LoadedVQ, load_vq

CHUNK = 32
PROMPTS = 8
"""Captions drawn at each sampling where `train.sample_prompts` names none."""
SHEET_ROWS, SHEET_SAMPLES = 12, 3


@dataclass(frozen=True)
class Asked:
    """One question of recall: after which step, of how many pictures, and where the fetched pictures are."""

    step: int
    count: int
    pairs: Path


@dataclass(frozen=True)
class SampleSheets:
    """What it takes to draw."""

    gpt: GPT
    condition: Conditioner
    vq: LoadedVQ
    sampling: Sampling
    prompts: Sequence[str]  # what sample sheets show

    @property
    def note(self) -> str:
        """Return the line under every sheet: what drew it, stand-ins named."""
        settings = self.sampling
        return (
            f"tokenizer {self.vq.weights.label}; {self.condition.says}; "
            f"cfg {settings.cfg_scale:g}, top-k {settings.top_k or 'all'}, temperature {settings.temperature:g}, "
            f"top-p {settings.top_p:g}, seed {settings.seed}"
        )

    def draw(self, prompts: Sequence[str], seed: int) -> Tensor:
        """Return codes (B, N) on the CPU; prompt b draws from its own stream, seed + b."""
        n_tokens = self.gpt.spec.grid**2
        drawn = []
        for start in range(0, len(prompts), CHUNK):
            condition = self.condition.of(list(prompts[start : start + CHUNK]))
            drawn.append(generate(self.gpt, condition, n_tokens, replace(self.sampling, seed=seed + start)).cpu())
        return torch.cat(drawn)

    def decode(self, codes_BN: Tensor) -> Tensor:
        """Return pixels (B, 3, H, W) in [-1, 1]."""
        with torch.no_grad():
            return self.vq.vq.decode(codes_BN.to(next(self.vq.vq.parameters()).device))

    def pictures(self, codes_BN: Tensor) -> list[Image.Image]:
        """Return the codes as pictures."""
        return [
            Image.fromarray(pixels) for chunk in torch.split(codes_BN, CHUNK) for pixels in to_uint8(self.decode(chunk))
        ]

    def sheet(self, path: Path, step: int) -> None:
        """Write a grid of the prompts and three samples each."""
        columns = [self.pictures(self.draw(self.prompts, self.sampling.seed + 1000 * n)) for n in range(SHEET_SAMPLES)]
        rows = [
            Row(prompt, pictures) for prompt, pictures in zip(self.prompts, zip(*columns, strict=True), strict=True)
        ]
        save_grid(
            path, Grid(f"samples at step {step}", [f"sample {n + 1}" for n in range(SHEET_SAMPLES)], rows, self.note)
        )

    def recall(self, folder: Path, training: Batch, asked: Asked) -> Recall | None:
        """Draw the captions of the first training pictures, measure what comes back; write memorised.png and .json.

        Returns None where the folder holds this very answer already.
        """
        about = {"step": asked.step, "asked": asked.count, "drawn_by": self.note}
        path = folder / "memorised.json"
        if path.is_file() and {name: read_json(path).get(name) for name in about} == about:
            return None
        drawn_BN = self.draw(training.captions_B[: asked.count], self.sampling.seed)
        codes_MN = torch.from_numpy(training.codes_BN)
        recall = measure_recall(drawn_BN, codes_MN, range(len(drawn_BN)), self.decode)
        self._recall_sheet(folder / "memorised.png", training, drawn_BN[:SHEET_ROWS], (recall, asked.pairs))
        write_json(path, {**recall.record(), **about})
        return recall

    def _recall_sheet(self, path: Path, training: Batch, drawn_BN: Tensor, context: tuple[Recall, Path]) -> None:
        recall, pairs = context
        shown = slice(len(drawn_BN))
        rebuilt = self.pictures(torch.from_numpy(training.codes_BN[shown]))
        uids, prompts = training.uids_B[shown], training.captions_B[shown]
        originals = cropped_originals(pairs, uids, rebuilt[0].width)
        columns: dict[str, Sequence[Image.Image | None]] = {
            "from its codes": rebuilt,
            "sample 1": self.pictures(drawn_BN),
        }
        if originals:
            columns = {"picture": [originals.get(uid) for uid in uids], **columns}
        for number in range(1, SHEET_SAMPLES):
            columns[f"sample {number + 1}"] = self.pictures(self.draw(prompts, self.sampling.seed + 1000 * number))
        rows = [
            Row(prompt, pictures) for prompt, pictures in zip(prompts, zip(*columns.values(), strict=True), strict=True)
        ]
        save_grid(
            path,
            Grid(
                "What the GPT gives back of its training set",
                list(columns),
                rows,
                "\n".join([*recall.lines(), self.note]),
            ),
        )


def open_sheets(job: Job) -> SampleSheets:
    """Load the tokenizer that turns samples into pictures. Raises WeightsError."""
    loaded = load_vq(*job.vq)
    loaded.vq.to(job.machine.device)
    config = job.config
    sampling = Sampling(
        config.sample_cfg_scale, config.sample_top_k, config.sample_temperature, config.sample_top_p, config.seed
    )
    return SampleSheets(job.gpt, job.condition, loaded, sampling, prompts(job))


def prompts(job: Job) -> list[str]:
    """Return what to draw: the recipe's prompts, else the captions or classes of the first pictures."""
    if job.config.sample_prompts:
        return job.config.sample_prompts
    return job.pictures.batch(0, min(PROMPTS, job.pictures.samples)).captions_B


def cropped_originals(pairs: Path, uids: Sequence[str], size: int) -> dict[str, Image.Image]:
    """Return the fetched pictures of these uids, cropped to `size` pixels, as far as RUN/pairs still has them."""
    from filters.images.decode import ImageFault, ImageLimits, open_picture  # the one gate for foreign bytes

    missing, pictures = set(uids), dict[str, Image.Image]()
    tars = (path for path in sorted(pairs.glob("*.tar")) if may_hold(path, missing))
    samples = (sample for path in tars for sample in stored_pictures(path, missing))
    for key, jpeg in ((key, parts["jpg"]) for key, parts in samples if "jpg" in parts):
        with contextlib.suppress(ImageFault):
            pictures[key] = center_crop(open_picture(jpeg, ImageLimits(), stored=True), size)
        missing.discard(key)
        if not missing:
            break
    return pictures
