"""Pictures that begin and end at different times in one decode are those that `generate` draws alone."""

import pytest
import torch

from pipeline.sampling.generate import Sampling, generate
from pipeline.sampling.slots import Slots
from tests.support.small_gpt import prompts, small

WISHES = [
    (0, 4, Sampling(cfg_scale=2.0, top_k=0, seed=5)),  # begins at step 0, a caption of 4 tokens
    (0, 1, Sampling(cfg_scale=1.0, top_k=7, temperature=0.7, seed=6)),
    (3, 6, Sampling(cfg_scale=4.0, top_k=1, seed=7, cfg_interval=(2, 9))),
    (9, 2, Sampling(cfg_scale=3.0, top_k=20, top_p=0.8, seed=8, cfg_interval=(0, 4))),
    (17, 3, Sampling(cfg_scale=1.5, top_k=0, temperature=1.3, seed=9)),
    (18, 0, Sampling(cfg_scale=2.5, top_k=1, seed=1)),
]


def conditions(condition):
    if condition == "class":
        return [torch.tensor([number + 1]) for number in range(len(WISHES))]
    x, lengths = prompts([length for _, length, _ in WISHES])
    return [(x[row : row + 1], lengths[row : row + 1]) for row in range(len(WISHES))]


def served(slots, given):
    """Serve the wishes, each as soon as its step has come and a slot is free; return wish -> codes."""
    waiting, at, found = list(range(len(WISHES))), {}, {number: [] for number in range(len(WISHES))}
    for step in range(200):
        while waiting and WISHES[waiting[0]][0] <= step and slots.free:
            at[slots.free[0]] = waiting[0]
            slots.join(slots.free[0], given[waiting[0]], WISHES[waiting.pop(0)][2])
        for slot, code in slots.step().items():
            found[at[slot]].append(code)
            if not slots.left(slot):
                slots.leave(slot)
        if not waiting and len(slots.free) == slots.slots:
            return found
    raise AssertionError("the slots never came to an end")


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("condition", ["text", "class"])
def test_each_draws_what_it_draws_alone(condition, count):
    gpt = small(condition, "identity")
    given = conditions(condition)
    found = served(Slots(gpt, count), given)
    for number, (_, _, sampling) in enumerate(WISHES):
        assert found[number] == generate(gpt, given[number], 16, sampling)[0].tolist(), number


def test_a_picture_that_is_given_up_disturbs_nobody():
    gpt, given = small(), conditions("text")
    slots = Slots(gpt, 2)
    slots.join(0, given[0], WISHES[0][2])
    slots.join(1, given[1], WISHES[1][2])
    kept = [slots.step()[0] for _ in range(4)]
    slots.leave(1)
    assert slots.free == [1]
    kept += [slots.step()[0] for _ in range(12)]
    assert kept == generate(gpt, given[0], 16, WISHES[0][2])[0].tolist()
    assert slots.step() == {}


def test_fewer_codes_are_the_first_of_all():
    gpt, given = small(), conditions("text")
    slots = Slots(gpt, 1)
    slots.join(0, given[0], WISHES[0][2], n_tokens=5)
    codes = [code for _ in range(9) for code in slots.step().values()]
    assert codes == generate(gpt, given[0], 16, WISHES[0][2])[0].tolist()[:5]


def test_what_cannot_be_is_refused():
    gpt, given = small(), conditions("text")
    slots = Slots(gpt, 2)
    slots.join(0, given[0], Sampling())
    for wrong, said in (
        (lambda: slots.join(0, given[1], Sampling()), r"slot 0, 16 codes: wanted a free slot \(now \[1\]\)"),
        (lambda: slots.join(1, given[1], Sampling(), n_tokens=17), "17 codes: wanted a free slot"),
        (lambda: slots.join(1, torch.tensor([3]), Sampling()), "a text model wants"),
        (lambda: slots.join(1, prompts([2, 3]), Sampling()), "draws one picture, got a condition of 2 rows"),
        (lambda: slots.leave(1), "slot 1 is free"),
        (lambda: Slots(gpt, 0), "0 slots of 16 codes"),
    ):
        with pytest.raises(ValueError, match=said):
            wrong()
    with pytest.raises(ValueError, match="labels from 10 to 10, wanted 0 to 9"):
        Slots(small("class"), 1).join(0, torch.tensor([10]), Sampling())
