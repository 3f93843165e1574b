"""Prompts are found by name and keep their words."""

import pytest

from captioning.prompts import MOST_LETTERS, PROMPTS, Prompt, check_prompt, fill, prompt_named


def test_describe_v1_is_the_prompt_of_llamagen() -> None:
    prompt = prompt_named("describe_v1")
    assert prompt.text == "Describe this image in as much detail as possible"
    assert "2406.06525" in prompt.source


def test_names_are_versioned_and_differ() -> None:
    assert all(name == prompt.name and name.rpartition("_v")[2].isdigit() for name, prompt in PROMPTS.items())
    assert len({prompt.text for prompt in PROMPTS.values()}) == len(PROMPTS)


def test_an_unknown_prompt_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no prompt 'poem_v1'; known: describe_v1, .*visible_only_v1"):
        prompt_named("poem_v1")


def test_fields_are_filled_and_pictures_without_them_are_asked_otherwise() -> None:
    prompt = Prompt("p_v1", "Beside {alt} and {top_caption}: what?", "ours", "What?")
    assert prompt.fields == ("alt", "top_caption")
    assert fill(prompt, "a {top_caption}\n dog", "x") == 'Beside "a {top_caption} dog" and "x": what?'
    assert fill(prompt, "a", None) == fill(prompt, " \n", "b") == "What?"
    assert fill(PROMPTS["describe_v1"], "alt", "top") == PROMPTS["describe_v1"].text


def test_a_field_is_one_bounded_line() -> None:
    prompt = Prompt("p_v1", "{alt}", "ours", "What?")
    assert fill(prompt, "word " * 1000, None) == '"' + ("word " * (MOST_LETTERS // 5)).strip() + '"'
    assert fill(prompt, "x" * 1000, None) == '"' + "x" * MOST_LETTERS + '"'
    assert fill(prompt, "a\x00\u202eb", None) == '"a b"'
    assert fill(prompt, "\u0645\u06cc\u200c\u062e co\u00adop", None) == '"\u0645\u06cc\u200c\u062e co\u00adop"'


@pytest.mark.parametrize(
    ("text", "without", "says"),
    [
        ("{alt}", "", "without: wanted the question for pictures that lack alt"),
        ("{url}", "x", r"text: no field \{url\}; fields that it may hold: alt, top_caption"),
        ("{alt}", "{alt}", r"without: no field \{alt\}; fields that it may hold: none"),
        (" ", "", "text: empty"),
    ],
)
def test_a_wrong_prompt_says_what_it_may_hold(text: str, without: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check_prompt(Prompt("p_v1", text, "ours", without))
    assert [check_prompt(prompt) for prompt in PROMPTS.values()] == [None] * len(PROMPTS)
