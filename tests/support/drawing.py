"""Checkpoints that `pipeline sample` draws from in a moment: GPT-demo over VQ-demo's 512 codes, 4 x 4 of them."""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from manifests.files import write_json
from pipeline.training.weights import facts_of, read_weights
from tests.support.small_gpt import small
from tokenize_shards.vq import load_vq

SIDE = 32
"""Pixels of a picture."""


def llamagen_file(path: Path, condition: str = "text", **options: int) -> Path:
    """A file as LlamaGen publishes them: under "model", without a word about itself."""
    gpt = small(condition, **{"vocab": 512, "cond_len": 120, **options})
    torch.save({"model": gpt.state_dict(), "steps": 300000}, path)
    return path


def own_checkpoint(folder: Path, **facts: object) -> Path:
    """A checkpoint of this trainer: weights whose header says what they are, and the settings of its sample sheets."""
    folder.mkdir(parents=True)
    draft = llamagen_file(folder / "draft.pt", cond_len=8)
    weights = read_weights(draft)
    draft.unlink()
    made = {"name": "VQ-demo", "fingerprint": load_vq("VQ-demo", "demo").fingerprint, "codebook": 512, "grid": 4}
    said = {"grid": 4, "rope_cond": "zero", "tokenizer": made, "text": "hashed words", "step": 7, **facts}
    header = replace(facts_of(weights), **said).header()  # type: ignore[arg-type]
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.tensors.items()}, folder / "model.safetensors", header
    )
    write_json(folder / "state.json", {"step": 7, "train": {"sample_cfg_scale": 2.5, "sample_top_k": 40}})
    return folder
