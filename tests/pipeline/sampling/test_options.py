"""The words of `pipeline sample` become what is wished for, or are refused."""

from pathlib import Path

import pytest

from pipeline.sampling.options import Settings, Source, Wish, read_options


def read(*words):
    return read_options(words, "pipeline sample")


def test_what_is_left_out_is_left_open():
    assert read("a.pt", "a cat") == Wish(Source("a.pt"), Settings(), ("a cat",))


def test_every_option_arrives():
    wish = read(
        *("a.pt", "x", "--prompts", "p.txt", "--out", "o", "--count", "3", "--npz", "--ema", "--vq", "VQ-8", "y"),
        *("--vq-weights", "v.pt", "--text-weights", "t5", "--size", "512", "--precision", "bf16", "--device", "cpu"),
        *("--batch", "4", "--no-compile", "--cfg-scale", "2.5", "--cfg-interval", "4:80", "--top-k", "9"),
        *("--temperature", "0.9", "--top-p", "0.8", "--seed", "5"),
    )
    assert wish == Wish(
        Source("a.pt", True, "VQ-8", "v.pt", "t5", 512, "bf16", "cpu"),
        Settings(2.5, (4, 80), 9, 0.9, 0.8, 5),
        ("x", "y"),
        *(Path("p.txt"), Path("o"), 3, True, 4, False),
    )


@pytest.mark.parametrize(("word", "meant"), [("100", (0, 100)), ("4:80", (4, 80)), ("4:", (4, None)), (":9", (0, 9))])
def test_intervals(word, meant):
    assert read("a.pt", "--cfg-interval", word).settings.cfg_interval == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cfg-interval", "9:3"], "wanted K (the first K codes), A:B or A:"),
        (["--cfg-interval", ""], "wanted K (the first K codes), A:B or A:"),
        (["--count", "0"], "wanted a whole number from 1 up"),
        (["--precision", "fp8"], "invalid choice"),
        (["--ema", "--raw"], "not allowed with"),
        (["--see", "5"], "unrecognized arguments"),
    ],
)
def test_wrong_use_ends_with_2_and_words(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        read("a.pt", *words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err
