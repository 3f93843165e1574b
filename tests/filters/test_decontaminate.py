"""Prompts of evaluation sets in texts: by eight words, whole where shorter, and on real rows."""

import json

import pyarrow.parquet as pq
import pytest

from filters.decontaminate import Hit, PromptError, Prompts, read_prompts, words
from tests.support.paths import SHARED

DATA = SHARED / "data"


def test_words_are_letters_and_digits_without_case():
    assert words("A dog's T-shirt, №5 — STRASSE/straße!") == (
        "a",
        "dog",
        "s",
        "t",
        "shirt",
        "no5",
        "strasse",
        "strasse",
    )
    assert words("_ … ") == ()


@pytest.fixture
def prompts():
    made = Prompts(8, 4)
    lines = [
        "one two three four five six seven eight nine",
        "bond",
        "The Eiffel Tower",
        "a red cube on a blue ball",
        "???",
    ]
    made.add("p.txt", list(enumerate(lines, 1)))
    return made


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("x One, two; three four five six SEVEN eight y", Hit("p.txt", 1, "one two three four five six seven eight")),
        ("two three four five six seven eight nine", Hit("p.txt", 1, "two three four five six seven eight nine")),
        ("one two three four five six seven and eight", None),  # seven in a row
        ("bond", Hit("p.txt", 2, "bond")),
        ("Bond.", Hit("p.txt", 2, "bond")),
        ("James Bond", None),  # a short prompt must be the whole text
        ("photo of the Eiffel Tower at night", None),
        ("the eiffel tower", Hit("p.txt", 3, "the eiffel tower")),
        ("Here: a red cube on a blue ball, rendered", Hit("p.txt", 4, "a red cube on a blue ball")),
        ("a red cube on a blue box", None),
        ("", None),
        ("!!", None),
        (None, None),
    ],
)
def test_a_text_repeats_a_prompt(prompts, text, hit):
    assert prompts.hit(text) == hit


def test_files_of_prompts(tmp_path):
    (tmp_path / "a.csv").write_text('id,Caption\n1,"a, b"\n2,\n3,c\n')
    (tmp_path / "a.tsv").write_text("Prompt\tNote\nx y\t1\n")
    (tmp_path / "a.txt").write_text("one\n\n two \n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "p"}\n"q"\n{"text": "r"}\n')
    got = [read_prompts(tmp_path / f"a.{kind}") for kind in ("csv", "tsv", "txt", "jsonl")]
    assert got == [[(2, "a, b"), (4, "c")], [(2, "x y")], [(1, "one"), (3, "two")], [(1, "p"), (2, "q"), (3, "r")]]


def test_files_that_hold_no_prompts(tmp_path):
    (tmp_path / "a.csv").write_text("id,name\n1,x\n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "p"}\n{"x": 1}\n')
    (tmp_path / "b.jsonl").write_text("{\n")
    says = {
        "a.csv": "line 1: no column named prompt",
        "a.jsonl": "line 2: no text under",
        "b.jsonl": "line 1: not JSON",
        "c": "No such",
    }
    for name, what in says.items():
        with pytest.raises(PromptError, match=what):
            read_prompts(tmp_path / name)


def test_real_rows_against_real_prompts():
    if not DATA.is_dir():
        pytest.skip("shared data is absent")
    parti, coco = read_prompts(DATA / "PartiPrompts.tsv"), read_prompts(DATA / "coco_captions.csv")
    assert (len(parti), len(coco)) == (1632, 30_000)
    assert parti[0] == (2, "bond")
    made = Prompts(8, 4)
    made.add("PartiPrompts.tsv", parti)
    made.add("coco_captions.csv", coco)
    texts = pq.read_table(DATA / "laion400m_10000.parquet", columns=["TEXT"])["TEXT"].to_pylist()
    hits = [hit for text in texts if (hit := made.hit(text))]
    # counted with grep -i "a black and white image of a woman" over both files
    assert [(hit.name, hit.words) for hit in hits] == [("coco_captions.csv", "a black and white image of a woman")]
    assert all(made.hit(prompt) for _, prompt in (*parti, *coco) if words(prompt))
    assert json.dumps(hits[0].line) == "10649"
