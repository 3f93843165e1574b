"""Measure how much of its training set a GPT gives back: the demo's proof that text and codes came through unmixed."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

CHUNK = 64


@dataclass(frozen=True)
class Recall:
    """Shares of prompts whose sample's nearest training picture, in pixels, is (or is among the five nearest) its
    own."""

    pictures: int
    top1: float
    top5: float
    chance_top1: float
    chance_top5: float
    exact_codes: float  # share of sampled codes that equal the picture's

    def lines(self) -> list[str]:
        """Return the report as the trainer prints it."""
        return [
            (
                f"recall of {self.pictures} training captions: own picture nearest {self.top1:.1%} (top-5"
                f" {self.top5:.1%}); chance {self.chance_top1:.1%} (top-5 {self.chance_top5:.1%}); codes equal"
                f" {self.exact_codes:.1%}"
            ),
            (
                "this is memorising, not generalising: it shows that captions and codes went through the whole chain"
                " unmixed, and no more"
            ),
        ]

    def record(self) -> dict[str, float | int | str]:
        """Return the values for a JSON file."""
        return {**asdict(self), "says": self.lines()[1]}


def nearest_ranks(sampled_BX: Tensor, reference_MX: Tensor, own_B: Sequence[int]) -> list[int]:
    """Return for each row how many reference rows are strictly nearer (Euclidean) than its own, `own_B`: 0 is a hit."""
    distance_BM = torch.cdist(sampled_BX, reference_MX)
    own_B1 = distance_BM.gather(1, torch.tensor(own_B)[:, None])
    return [int(rank) for rank in (distance_BM < own_B1).sum(1)]


def measure_recall(
    sampled_BN: Tensor, codes_MN: Tensor, own_B: Sequence[int], decode: Callable[[Tensor], Tensor]
) -> Recall:
    """Return the recall of sampled codes against all M training pictures, each seen as its reconstruction from codes.

    own_B: the row of `codes_MN` that each sample's prompt belongs to. decode: codes (B, N) -> pixels (B, 3, H, W).
    """
    ranks = nearest_ranks(_pixels(sampled_BN, decode), _pixels(codes_MN, decode), own_B)
    pictures, prompts = len(codes_MN), len(ranks)
    return Recall(
        pictures=prompts,
        top1=sum(rank < 1 for rank in ranks) / prompts,
        top5=sum(rank < 5 for rank in ranks) / prompts,
        chance_top1=1 / pictures,
        chance_top5=min(1.0, 5 / pictures),
        exact_codes=float((sampled_BN == codes_MN[list(own_B)]).double().mean()),
    )


def _pixels(codes_BN: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([decode(chunk).flatten(1).float().cpu() for chunk in torch.split(codes_BN, CHUNK)])
