"""What is measured of captions: numbers of each, null where there are no words or no tool for it."""

import time
import unicodedata

import pytest

from captioning.gate.measures import MEASURES, Said, Tools, likeness, measure, measures_of

TEXTS = ["A red cat sits here.", None, "", "the dog the big dog the big dog the big"]
ALTS = ["Red cat", "x", None, "The dog, the big dog. The big dog the big!"]


def measured(tools=None):
    tools = tools or Tools()
    return measure(Said(TEXTS, [False, None, False, True], ALTS, [None] * 4, [("Describe.",)] * 4), tools).to_pylist()


def test_a_row_a_text_all_null_where_there_is_none():
    rows = measured()
    assert (rows[0]["words"], rows[0]["at_limit"], rows[0]["ends_sentence"]) == (5, False, True)
    assert set(rows[1].values()) == {None}
    assert (rows[2]["characters"], rows[2]["words"], rows[2]["alt_likeness"]) == (0, 0, None)
    assert (rows[3]["repeats"], rows[3]["at_limit"], rows[3]["alt_likeness"]) == (3, True, 1.0)
    assert {row["t5_tokens"] for row in rows} == {row["language"] for row in rows} == {None}


def test_tools_are_asked_about_texts_alone():
    asked = []

    def languages(texts):
        asked.append(list(texts))
        return ["en", None, "de"], [0.5, float("nan"), 1.0]

    rows = measured(Tools(languages=languages, tokens=lambda texts: [len(text) for text in texts]))
    assert asked == [[TEXTS[0], "", TEXTS[3]]]
    assert [row["t5_tokens"] for row in rows] == [len(TEXTS[0]), None, 0, len(TEXTS[3])]
    assert [(row["language"], row["language_score"]) for row in rows] == [
        ("en", 0.5),
        (None, None),
        (None, None),
        ("de", 1.0),
    ]


def test_the_schema_names_no_column_of_the_tables_around_it():
    assert not {"uid", "reason", "text", "captioner"} & {*MEASURES.names}


def test_likeness_is_of_words_in_order():
    assert likeness(["a", "red", "cat"], ["a", "red", "cat"]) == 1
    assert likeness(["a", "red", "cat", "sits"], ["a", "red", "dog", "sits"]) == 0.75
    assert likeness([], ["a"]) == 0


def test_scores_of_picture_and_texts_are_passed_on():
    said = Said(["A cat."], [False], ["x"], [None], [()], [(0.25, 0.5)])
    (row,) = measure(said, Tools()).to_pylist()
    assert (row["caption_score"], row["alt_score"]) == (0.25, 0.5)


@pytest.mark.parametrize(
    "unit",
    [
        ".",
        "'a ",
        "please provide ",
        "1. ",
        '"a ',
        "sign i ",
        "\u201c",
        "\u2018a ",
        "\u00ab",
        "says i ",
        "no image ",
        "1,000 ",
    ],
)
def test_work_on_what_runs_away_grows_with_its_length_alone(unit):
    """A captioner in a loop gives a megabyte; no measure may take the square of it."""

    def seconds(letters):
        text = unit * (letters // len(unit)) + "x"
        began = time.process_time()
        measures_of(text, text[:1000], "", [["a"]])
        return time.process_time() - began

    few = min(seconds(20_000) for _ in range(3))
    assert (
        min(seconds(400_000) for _ in range(3)) < 100 * few + 0.5
    )  # twenty times the letters; the square would be 400


def test_accents_are_one_letter_however_they_are_written():
    alt, text = (unicodedata.normalize(form, "A man named Zoë in Café Noë") for form in ("NFC", "NFD"))
    row = measures_of(text, alt, "", [])
    assert (row["lost_names"], row["invented_names"], row["alt_likeness"]) == (0, 0, 1.0)
