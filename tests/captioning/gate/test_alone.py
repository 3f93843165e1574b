# ruff: noqa: RUF001
"""A caption judged by its text alone."""

import pytest

from captioning.gate.alone import caption_flags
from captioning.gate.config import GateConfig


def test_flags_of_a_text_alone():
    assert caption_flags("A red cat sits on a mat.") == ()
    assert caption_flags("A red cat sits on", at_limit=True) == ("truncated",)
    assert caption_flags("") == ("empty", "too_short")
    assert caption_flags("A cat", gate=GateConfig(min_words=2)) == ()
    assert caption_flags("I'm sorry, I can't. USER: what?") == ("refusal", "prompt_leak")


SOUND = (
    "女の子が座っています。男の子が立っています。犬が走っています。",
    "三只猫坐在沙发上：一只黑色的猫，一只白色的猫，还有一只橘色的猫。",
    "猫が寝ています。犬が寝ています。鳥が鳴いています。",
    "แมวสีดำนั่งอยู่ แมวสีขาวนอนอยู่ แมวสีส้มยืนอยู่",
    "A cat sits here.\r\nA dog lies there.",
    "A shaking face \U0001fae8 on a phone.",
)


@pytest.mark.parametrize("text", SOUND)
def test_sound_captions_of_any_script_have_no_flag(text):
    assert caption_flags(text) == ()


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("这只猫坐在沙发上，这只猫坐在沙发上，这只猫坐在沙发上，这只猫坐在沙发上。", "repeated"),
        ("ははははははははははは", "repeated"),
        ("A cat \u202e sits here.", "non_printable"),
        ("\ufeffA cat sits here.", "non_printable"),
    ],
)
def test_faults_of_any_script_are_told(text, flag):
    assert flag in caption_flags(text)
