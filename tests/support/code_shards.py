"""Code shards for tests: seeded random codes of the stand-in VQ-demo, packed as the pipeline packs them."""

from functools import cache
from pathlib import Path

import numpy as np

from manifests.shards import write_shard
from tokenize_shards.catalog import vq_spec
from tokenize_shards.samples import Tokenizer, sample_parts

GRID = 8
CODEBOOK = vq_spec("VQ-demo").codebook_size
WORDS = ["red", "green", "blue", "cat", "dog", "fish", "tree", "house", "star", "moon", "sun", "boat"]

RECIPE = """
[output]
root = "{root}"
[tier.pretrain]
size = 64
[tier.finetune]
size = 64
[pretokenize]
vq = "VQ-demo"
weights = "stand-in"
[train]
model = "GPT-demo"
text = "hashed_words"
cond_len = 8
cond_dim = 32
batch = 4
steps = 4
log_every = 2
checkpoint_every = 1000
sample_every = 0
sample_cfg_scale = 2.0
sample_top_k = 0
lr = 3e-3
tensorboard = false
"""


@cache
def tokenizer() -> Tokenizer:
    from tokenize_shards.vq import load_vq  # torch: what imports without it may use the rest of this module

    loaded = load_vq("VQ-demo", "stand-in")
    return Tokenizer("VQ-demo", loaded.fingerprint, CODEBOOK, GRID, loaded.weights.stand_in)


def row_of(number: int, crops: int = 1) -> dict[str, object]:
    rng = np.random.default_rng([7, number])
    return {
        "uid": number.to_bytes(16, "big"),
        "url": f"http://pictures.test/{number}.jpg",
        "codes": rng.integers(0, CODEBOOK, crops * GRID**2).tolist(),
        "n_crops": crops,
        "size": 64,
        "crops": [{"place": "center", "scale": 1.0, "scaled": [64, 64], "box": [0, 0, 64, 64], "flip": False}] * crops,
        "sha256": bytes(32),
        "text": f"{WORDS[number % 12]} {WORDS[number // 12 % 12]} number {number}",
        "top_caption": None,
        "said": [
            {
                "captioner": "llava",
                "caption": f"long {number}",
                "short_caption": f"short {number}",
                "fit_caption": None,
                "origin": "attempt_1",
                "flags": [],
                "model": "m",
                "prompt": "p",
            }
        ],
    }


def write_codes(root: Path, shards: tuple[int, ...] = (5, 7), tier: str = "pretrain", crops: int = 1) -> list[Path]:
    """Write RUN/codes/TIER/00000.tar… holding so many samples each; return their paths."""
    paths, number = [], 0
    for shard, count in enumerate(shards):
        paths.append(root / "codes" / tier / f"{shard:05d}.tar")
        rows = [row_of(n, crops) for n in range(number, number + count)]
        samples = [(row["uid"].hex(), sample_parts(row, tier, tokenizer(), "parent")) for row in rows]
        write_shard(paths[-1], samples, index=True)
        number += count
    return paths


def write_recipe(folder: Path, root: Path | None = None) -> Path:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(root=(root or folder / "run").as_posix()))
    return path
