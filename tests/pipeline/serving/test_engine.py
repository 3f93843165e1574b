"""How long a turn of drawing is."""

from pipeline.sampling.pick import Sampling
from pipeline.serving.engine import draw_for
from pipeline.serving.wish import Wish
from tests.support.serving import Shades


def test_a_turn_ends_when_a_picture_is_whole():
    engine = Shades()
    engine.join(0, Wish("abc", Sampling(seed=1)))
    for _ in range(10):
        engine.step()
    engine.join(1, Wish("abc", Sampling(seed=1)))
    assert draw_for(engine, 3600, {0: 6, 1: 16}) == {
        0: [4 + 3 * n for n in range(10, 16)],
        1: [4 + 3 * n for n in range(6)],
    }


def test_a_turn_draws_one_code_each_at_least():
    engine = Shades()
    engine.join(1, Wish("abc", Sampling(seed=1)))
    assert draw_for(engine, 0, {1: 16}) == {1: [4]}
