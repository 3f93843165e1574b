"""Traces of templates and prompts are counted a caption once, each by its name."""

import pyarrow as pa

from captioning.corpus.leaks import Leaks, leak_list, prompt_openings

PROMPTS = {
    "describe_v1": "Describe this image in as much detail as possible",
    "long_v2": "Describe this image in as few words as you can",
    "with_alt": "The page says {alt}. Describe what it shows",
    "own": "Tell me everything you see here.",
}


def found_in(*texts, examples=3):
    leaks = Leaks(PROMPTS, examples)
    leaks.add(pa.array(texts, pa.string()), pa.array([bytes([n]) * 16 for n in range(len(texts))], pa.binary(16)))
    return leaks, {what: (count, [uid[0] for uid in uids]) for what, count, uids in leaks.found()}


def test_prompts_are_known_by_their_first_words_before_any_field():
    assert prompt_openings(PROMPTS) == {
        "describe this image in as": "prompt describe_v1, long_v2",
        "tell me everything you see": "prompt own",
    }


def test_a_caption_is_counted_once_for_each_thing_that_leaked():
    leaks, found = found_in(
        "A cat. USER: describe this\nimage in  AS much detail",
        "a user: and an assistant: talk",
        "ASSISTANT: ASSISTANT: a dog",
        "As an AI language model, I see a cat",
        "A cat <image>",
        "nothing",
    )
    assert found == {
        "ASSISTANT:": (1, [2]),
        "USER:": (1, [0]),
        "as an ai": (1, [3]),
        "language model": (1, [3]),
        "<image>": (1, [4]),
        "prompt describe_v1, long_v2": (1, [0]),
    }
    assert leaks.captions == 4


def test_a_few_examples_are_kept():
    _, found = found_in(*["<s> hello"] * 9, examples=2)
    assert found == {"<s>": (9, [0, 1])}


def test_no_captions_have_no_leaks():
    assert found_in()[1] == {}


def test_each_text_stands_once():
    assert len(set(leak_list())) == len(leak_list()) > 20
    assert "###" in leak_list()
