"""Prompts are found by name and keep their words."""

import pytest

from captioning.prompts import PROMPTS, prompt_named


def test_describe_v1_is_the_prompt_of_llamagen() -> None:
    prompt = prompt_named("describe_v1")
    assert prompt.text == "Describe this image in as much detail as possible"
    assert "2406.06525" in prompt.source


def test_names_are_versioned_and_differ() -> None:
    assert all(name == prompt.name and name.rpartition("_v")[2].isdigit() for name, prompt in PROMPTS.items())
    assert len({prompt.text for prompt in PROMPTS.values()}) == len(PROMPTS)


def test_an_unknown_prompt_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no prompt 'poem_v1'; known: describe_v1, one_sentence_v1, visible_only_v1"):
        prompt_named("poem_v1")
