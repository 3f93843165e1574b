"""The sizes of the GPTs: LlamaGen's table, parameter counts worked out from a spec, and what is refused."""

import subprocess
import sys

import pytest

from pipeline.gpt_spec import SIZES, GPTSpec, gpt_spec, parameters
from tests.support.gpt_sizes import TABLE
from tests.support.paths import ROOT


@pytest.mark.parametrize("name", TABLE)
def test_sizes_are_llamagens(name):
    by_class, by_text = (gpt_spec(name, condition, 16, "zero", {}) for condition in ("class", "text"))
    shape = (by_class.layers, by_class.heads, by_class.dim, by_class.head_dim, by_class.ffn_dim)
    assert (*shape, parameters(by_class), parameters(by_text)) == TABLE[name]


def test_the_demos_size_is_the_only_other_one():
    assert set(SIZES) == {*TABLE, "GPT-demo"}
    spec = gpt_spec("GPT-demo", "text", 16, "zero", {})
    # 8 x 192 / 3 = 512, a multiple of 256 already
    assert (spec.layers, spec.heads, spec.dim, spec.head_dim, spec.ffn_dim) == (4, 6, 192, 32, 512)


def test_feed_forward_widths_are_rounded_up():
    assert [GPTSpec(1, 1, dim).ffn_dim for dim in (96, 97, 192, 193)] == [256, 512, 512, 768]


def test_the_condition_takes_its_positions_before_the_image():
    assert gpt_spec("GPT-B", "text", 16, "zero", {}).prefix == 120
    assert gpt_spec("GPT-B", "text", 32, "zero", {"cond_len": 7}).prefix == 7
    assert gpt_spec("GPT-B", "class", 16, "zero", {"cond_len": 7}).prefix == 1


def test_defaults_are_llamagens():
    spec = gpt_spec("GPT-B", "text", 16, "zero", {})
    assert (spec.vocab, spec.cond_len, spec.cond_dim, spec.classes) == (16384, 120, 2048, 1000)
    assert {spec.token_dropout, spec.resid_dropout, spec.ffn_dropout, spec.cond_dropout} == {0.1}


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("GPT-Z", "text", 16, "zero"), {}, "model 'GPT-Z' is unknown; choices: GPT-B, GPT-L"),
        (("GPT-B", "sound", 16, "zero"), {}, "condition 'sound' is unknown; choices: text, class"),
        (("GPT-B", "text", 16, "one"), {}, "rope_cond 'one' is unknown; choices: zero, identity"),
        (("GPT-B", "text", 16, "zero"), {"dropout": 0.1}, "option 'dropout' is unknown; choices: vocab, cond_len"),
        (("GPT-B", "text", 16, "zero"), {"ffn_dropout": 1.01}, r"ffn_dropout is 1\.01, wanted 0\.\.1"),
        (("GPT-B", "text", 16, "zero"), {"cond_dropout": -0.1}, r"cond_dropout is -0\.1, wanted 0\.\.1"),
        (("GPT-B", "text", 0, "zero"), {}, "grid is 0, wanted at least 1"),
        (("GPT-B", "text", 16, "zero"), {"vocab": 0}, "vocab is 0, wanted at least 1"),
    ],
)
def test_what_nobody_defined_is_refused(arguments, options, says):
    with pytest.raises(ValueError, match=says):
        gpt_spec(*arguments, options)


def test_what_is_just_allowed():
    spec = gpt_spec("GPT-demo", "class", 1, "identity", {"ffn_dropout": 0.0, "cond_dropout": 1.0, "vocab": 1})
    assert (spec.ffn_dropout, spec.cond_dropout, spec.vocab, spec.grid) == (0.0, 1.0, 1, 1)


def test_a_spec_needs_no_torch():
    code = "import sys, pipeline.gpt_spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
