"""Decoding over the static cache equals whole forward passes; rows begin at any time, with captions of any length."""

import pytest
import torch

from pipeline.sampling.decode import Decoder
from pipeline.sampling.generate import Sampling, generate
from tests.support.small_gpt import prompts, small


def codes_of(rows, seed=5):
    return torch.randint(0, 50, (rows, 16), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rope_cond", ["zero", "identity"])
@pytest.mark.parametrize("condition", ["text", "class"])
def test_cached_steps_equal_the_full_forward(condition, rope_cond):
    gpt = small(condition, rope_cond)
    given = prompts([2, 5, 0, 6]) if condition == "text" else torch.tensor([3, 8, 0, 9])
    codes = codes_of(4)
    decoder = Decoder(gpt, 4, 16)
    steps = [decoder.fill([0, 1, 2, 3], gpt.embed(given)), *(decoder.advance(codes[:, n]) for n in range(15))]
    torch.testing.assert_close(torch.stack(steps, 1), gpt.logits(codes, given), atol=1e-5, rtol=0)


def test_a_row_may_begin_while_others_are_in_the_middle():
    gpt, (x, lengths), codes = small(), prompts([4, 1, 6]), codes_of(3)
    full = gpt.logits(codes, (x, lengths))

    def prompt(row):
        return gpt.embed((x[row : row + 1], lengths[row : row + 1]))

    decoder, found = Decoder(gpt, 2, 16), {0: [], 1: [], 2: []}
    found[0].append(decoder.fill([0], prompt(0))[0])
    for number in range(21):
        if number == 5:  # row 1 begins
            found[1].append(decoder.fill([1], prompt(1))[0])
        if number == 15:  # the first is through, and a third takes its row
            found[2].append(decoder.fill([0], prompt(2))[0])
        first, second = (0, number) if number < 15 else (2, number - 15), (1, max(0, number - 5))
        logits = decoder.advance(torch.stack([codes[first], codes[second]]))
        found[first[0]].append(logits[0])
        if 5 <= number < 20:
            found[1].append(logits[1])
    for row, logits in found.items():
        torch.testing.assert_close(torch.stack(logits[:16]), full[row, : len(logits[:16])], atol=1e-5, rtol=0)
    assert [len(found[row]) for row in (0, 1, 2)] == [16, 16, 7]


@pytest.mark.parametrize("condition", ["text", "class"])
def test_the_step_compiles_without_a_graph_break_into_one_graph(condition, monkeypatch):
    gpt, graphs, compile_ = small(condition), [], torch.compile

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda step, *, fullgraph, dynamic, mode: compile_(step, fullgraph=fullgraph, backend=count)
    )
    torch._dynamo.reset()
    given = prompts([2, 5]) if condition == "text" else torch.tensor([3, 8])
    decoder = Decoder(gpt, 4, 16, compiled=True)
    for _ in range(2):  # the second batch compiles nothing
        drawn = generate(gpt, given, 16, Sampling(top_k=1), decoder=decoder)
        assert torch.equal(drawn, generate(gpt, given, 16, Sampling(top_k=1)))
    assert len(graphs) == 1
