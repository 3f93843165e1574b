"""How much of its training set a GPT gives back, worked out on a few vectors."""

import pytest
import torch

from pipeline.evaluation.recall import Recall, measure_recall, nearest_ranks


def as_pixels(codes_BN: torch.Tensor) -> torch.Tensor:
    """Show codes as pictures whose pixels are the codes."""
    return codes_BN.float()[:, None, None, :]


def test_ranks_of_four_vectors():
    reference = torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0], [0.0, 1.0]])
    sampled = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    # from (0, 0) the four are 0, 5, 10 and 1 away; from (3, 4) they are 5, 0, 5 and sqrt(18) = 4.2 away
    assert nearest_ranks(sampled, reference, [0, 1, 2, 2]) == [0, 2, 3, 2]


def test_a_tie_counts_for_the_own_picture():
    reference = torch.tensor([[1.0], [-1.0], [1.0]])
    assert nearest_ranks(torch.tensor([[0.0], [1.0]]), reference, [1, 2]) == [0, 0]


def test_recall_by_hand():
    assert nearest_ranks(torch.tensor([[0.0], [4.1]]), torch.tensor([[0.0], [5.0], [4.0]]), [0, 1]) == [0, 1]
    codes = torch.tensor([[0, 1], [2, 3], [4, 5]])
    recall = measure_recall(torch.tensor([[0, 1], [4, 4]]), codes, [0, 1], lambda c: c.float()[:, :, None])
    assert (recall.top1, recall.top5, recall.exact_codes, recall.chance_top5) == (0.5, 1.0, 0.5, 1.0)


def test_top_1_and_top_5_of_eight_pictures():
    codes = torch.arange(8)[:, None]  # picture n is the one code n
    sampled = torch.tensor([[0], [1], [0], [0]])
    # own pictures 0, 0, 4, 6: nearer than the own ones are none, one (1), four (0..3), six (0..5)
    recall = measure_recall(sampled, codes, [0, 0, 4, 6], as_pixels)
    assert (recall.pictures, recall.top1, recall.top5) == (4, 1 / 4, 3 / 4)
    assert (recall.chance_top1, recall.chance_top5) == (1 / 8, 5 / 8)
    assert recall.exact_codes == 1 / 4


def test_pictures_are_decoded_in_chunks_and_keep_their_rows():
    sizes = []

    def decode(codes_BN: torch.Tensor) -> torch.Tensor:
        sizes.append(len(codes_BN))
        return as_pixels(codes_BN)

    codes = torch.arange(130)[:, None]
    assert measure_recall(codes[[129, 64]], codes, [129, 64], decode).top1 == 1.0
    assert sizes == [2, 64, 64, 2]


def test_the_report_says_what_it_does_not_show():
    recall = Recall(pictures=40, top1=0.75, top5=0.9, chance_top1=0.025, chance_top5=0.125, exact_codes=0.5)
    first, second = recall.lines()
    assert first == (
        "recall of 40 training captions: own picture nearest 75.0% (top-5 90.0%); chance 2.5% (top-5 12.5%); codes"
        " equal 50.0%"
    )
    assert "memorising, not generalising" in second
    assert recall.record() == {
        "pictures": 40,
        "top1": 0.75,
        "top5": pytest.approx(0.9),
        "chance_top1": 0.025,
        "chance_top5": 0.125,
        "exact_codes": 0.5,
        "says": second,
    }
