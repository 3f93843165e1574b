"""What a model says of itself, what leaked from its prompt, and openings that say nothing."""

import pytest

from captioning.gate.phrases import leaks, opens_emptily, refuses
from captioning.gate.words import words_of

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I\u2019m sorry, I cannot see it.",
    "As an AI language model, I do not have eyes.",
    "There is no image",
    "There is no image provided.",
    "There's no picture to describe.",
    "I do not see any image here.",
    "No image was provided.",
    "The image is not available.",
    "Please upload an image so that I can describe it.",
    "Unfortunately, I am unable to view it.",
    "I apologize for the confusion.",
    'The sign says "Stop". I cannot read the rest.',
    "\"I'm sorry, but I can't describe this image.\"",
    "I  can't\ndo that",
    "There are no images in your message.",
    "There was no image.",
    "The image failed to load.",
    "Image not available.",
    "I am not allowed to describe people.",
    "I won't describe this.",
)
DESCRIPTIONS = (
    'A sign that says "I\'m sorry" stands on a lawn.',
    "A sign that reads I'm sorry in red letters.",
    "A card with the words \u201cI cannot wait\u201d on it.",
    "A shirt with the text I can't even.",
    "A card saying \u2018I am sorry\u2019 lies on a table.",
    "There is no image of a person on the wall.",
    "There is no picture on the wall, only a nail.",
    "A robot with the label 'As an AI assistant' waves.",
    "Two people apologize to each other.",
    "The page cannot be read because it is torn.",
    "A poster: I am not able to fly, says a penguin.",
    "A sign: \"I'm sorry, come back later",
    "Ein Schild: \u201eI\u2019m sorry\u201c steht darauf.",
    "A note: I'm sorry",
    "A book titled I cannot sleep",
)


@pytest.mark.parametrize("text", REFUSALS)
def test_a_model_that_declines_or_speaks_of_itself_refuses(text):
    assert refuses(text)


@pytest.mark.parametrize("text", DESCRIPTIONS)
def test_what_is_quoted_or_shown_is_no_refusal(text):
    assert not refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        "The image shows a cat.",
        "This is an image of a cat.",
        "In this picture, we can see a cat.",
        "The photo depicts a man.",
        "A close-up photo of a man.",
        "Here we see a dog.",
        "Sure! A dog runs.",
    ],
)
def test_empty_openings_are_told(text):
    assert opens_emptily(text)


@pytest.mark.parametrize(
    "text", ["A cat sits.", "The imagery of Monet is soft.", "In the morning a man walks.", "An imaged tube stands."]
)
def test_openings_that_say_something_are_not(text):
    assert not opens_emptily(text)


ASKED = [words_of("Describe this image in as much detail as possible"), words_of("A page says")]


@pytest.mark.parametrize(
    ("text", "leaked"),
    [
        ("USER: A cat ASSISTANT: sits", True),
        ("A cat.<|im_end|>", True),
        ("</s> A cat", True),
        ("[INST] A cat [/INST]", True),
        ("### Human: what", True),
        ("Question: what is it? Answer: a cat", True),
        ("Describe this image in as much detail: a cat", True),
        ("A cat in as much detail as possible.", True),
        ("A cat in this image, in much detail.", False),
        ("A page says that it rains.", False),
        ("A user: a person at a desk", False),
        ("x < y and <b>bold</b>", False),
    ],
)
def test_marks_of_a_chat_and_runs_of_the_prompt_leak(text, leaked):
    assert leaks(text, words_of(text), ASKED) is leaked
