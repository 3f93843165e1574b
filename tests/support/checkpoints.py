"""Checkpoints of a tokenizer: the demo's, and one whose pickle would run code."""

import os

import torch

from tokenize_shards.vq import VQ, build_vq


def demo(seed: int = 0) -> VQ:
    torch.manual_seed(seed)
    return build_vq("VQ-demo")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["BOMB"],)
