"""The engine over a small GPT and the demo's tokenizer: pictures alone, with others, and as far as they are drawn."""

import asyncio
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.sampling.generate import generate
from pipeline.sampling.pick import Sampling
from pipeline.serving.drawing import Drawing
from pipeline.serving.gpt_engine import GPTEngine
from pipeline.serving.limits import Limits
from pipeline.serving.tickets import ENDED, Tickets
from pipeline.serving.wish import Wish
from pipeline.training.conditions import ClassCondition, TextCondition
from pipeline.training.studio import Studio
from pipeline.training.text_features import HashedWords
from tests.support.serving import PATIENCE
from tests.support.small_gpt import small
from tokenize_shards.vq import load_vq

pytestmark = pytest.mark.usefixtures("one_thread")
GRID = 4
TEXTS = ["a red fox", "a cat", "the sea at night, with many words in it", "...", "a red fox"]


def studio(condition="text"):
    loaded = load_vq("VQ-demo", "demo")
    gpt = small(condition, vocab=loaded.vq.spec.codebook_size, cond_len=8)
    made = TextCondition(HashedWords(16), 8, 16) if condition == "text" else ClassCondition(10)
    return Studio(gpt, made, loaded, Sampling(cfg_scale=2.0, top_k=0), "small", {})


@pytest.fixture(scope="module")
def text():
    return studio()


def drawn(engine, wishes):
    """Return the PNGs of wishes that are asked for at once."""

    async def run():
        tickets = Tickets(Limits(turn=0, preview_rows=1), engine.slots)
        made = [tickets.ask(wish, "a") for wish in wishes]
        made[0].watchers.add(asyncio.Event())  # previews change nothing
        task = asyncio.create_task(Drawing(engine, tickets).run())
        async with asyncio.timeout(PATIENCE):
            while not all(one.state in ENDED for one in made) or tickets.drawing:
                await asyncio.sleep(0.001)
                if task.done():
                    task.result()
        task.cancel()
        await asyncio.wait({task})
        return [one.png for one in made]

    return asyncio.run(run())


def wishes():
    return [
        Wish(text, Sampling(cfg_scale=1.0 + number % 3, top_k=[0, 5, 1][number % 3], seed=number % 4))
        for number, text in enumerate(TEXTS)
    ]


def test_a_picture_with_others_is_the_one_it_is_alone(text):
    alone = [png for wish in wishes() for png in drawn(GPTEngine(text, 1), [wish])]
    assert drawn(GPTEngine(text, 3), wishes()) == alone
    assert len({*alone}) == len(TEXTS) - 1 + (wishes()[0] != wishes()[4])


def test_it_is_what_generate_draws(text):
    wish = Wish("a cat", Sampling(cfg_scale=2.0, top_k=9, seed=4))
    (png,) = drawn(GPTEngine(text, 2), [wish])
    codes_1N = generate(text.gpt, text.of(["a cat"]), GRID**2, wish.sampling)
    image = Image.open(io.BytesIO(png))
    assert np.array_equal(np.asarray(image), text.pixels(codes_1N)[0])
    assert json.loads(image.info["tessera"]) == {**wish.record(), "model": text.says}


def test_rows_that_are_not_drawn_are_blank(text):
    engine = GPTEngine(text, 1)
    side = text.size // GRID
    image = np.asarray(Image.open(io.BytesIO(engine.picture([1, 2, 3, 4, 5, 6, 7, 8, 9], Wish("x", Sampling())))))
    assert image.shape == (text.size, text.size, 4)
    assert (image[: 2 * side, :, 3] == 255).all()
    assert (image[2 * side :, :, 3] == 0).all()
    filled = torch.tensor([[1, 2, 3, 4, *[5, 6, 7, 8] * 3]])
    assert np.array_equal(image[..., :3], text.pixels(filled)[0])


def test_a_model_of_classes_draws_them():
    made = studio("class")
    engine = GPTEngine(made, 2)
    assert engine.facts.classes == 10
    (png,) = drawn(engine, [Wish("7", Sampling(cfg_scale=2.0, top_k=0, seed=1))])
    codes_1N = generate(made.gpt, torch.tensor([7]), GRID**2, Sampling(cfg_scale=2.0, top_k=0, seed=1))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), made.pixels(codes_1N)[0])
    assert drawn(engine, [Wish("10", Sampling())]) == [b""]


def test_warming_leaves_the_slots_free(text):
    engine = GPTEngine(text, 2)
    before = drawn(engine, [wishes()[1]])
    engine._warm()
    assert drawn(engine, [wishes()[1]]) == before
