"""A caption judged by its text alone."""

from captioning.gate.alone import caption_flags
from captioning.gate.config import GateConfig


def test_flags_of_a_text_alone():
    assert caption_flags("A red cat sits on a mat.") == ()
    assert caption_flags("A red cat sits on", at_limit=True) == ("truncated",)
    assert caption_flags("") == ("empty", "too_short")
    assert caption_flags("A cat", gate=GateConfig(min_words=2)) == ()
    assert caption_flags("I'm sorry, I can't. USER: what?") == ("refusal", "prompt_leak")
