"""Rates of a rehearsal: given, of the file of costs, or assumed."""

import pytest

from pipeline.analysis.rates import Rate, Rates, parse_rates
from pipeline.recipes.schema import RecipeError


def test_what_is_given_beats_the_file_and_the_file_what_is_assumed():
    known = {"worker": {"fetch": 27.0, "score": 9.0}, "gpu": {"score": 900.0}}
    rates = Rates({"fetch": 30.0}, known, gpus=2)
    assert rates.of("fetch") == Rate(30.0, "worker", "given by --rate")
    assert rates.of("score") == Rate(900.0, "GPU", "of the file of costs")
    assert Rates({}, known, gpus=0).of("score") == Rate(9.0, "worker", "of the file of costs")
    assert Rates({}, {}, gpus=0).of("score") == Rate(10.0, "worker", "not measured (--rate score=ROWS)")
    assumed = Rates({}, {}, gpus=1, area=4.0).of("encode")  # 50 TFLOP/s of 4 x 138.5 GFLOP
    assert (assumed.per_s, assumed.each) == (pytest.approx(50_000 / 554), "GPU")
    assert assumed.source == "554 GFLOP a row at 50 TFLOP/s, not measured (--rate encode=ROWS)"


def test_a_gpu_waits_for_cores_that_decode():
    rates = Rates({"score": 1000.0, "t5": 1000.0, "decode": 100.0}, {}, gpus=4)
    assert (rates.rows_per_s("score", 8), rates.rows_per_s("score", 100)) == (800.0, 4000.0)
    assert rates.rows_per_s("t5", 8) == 4000.0  # reads no picture
    assert rates.rows_per_s("fetch", 8) == 200.0
    assert list(rates.told(["fetch", "t5"])) == [
        "fetch: 25 rows/s a worker, not measured (--rate fetch=ROWS)",
        "t5: 1,000 rows/s a GPU, given by --rate",
        "decode: 100 rows/s a worker, given by --rate",
    ]


@pytest.mark.parametrize("text", ["fetch", "fetch=", "fetch=0", "fetch=-3", "fetch=inf", "fetsch=3", "=3"])
def test_another_rate_is_refused(text):
    assert parse_rates(["fetch=27.5", "caption=4"]) == {"fetch": 27.5, "caption": 4.0}
    with pytest.raises(RecipeError, match=r"wanted STEP=ROWS.*steps: fetch, score, caption, encode, t5, decode"):
        parse_rates([text])
