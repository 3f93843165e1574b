"""Lists of terms are read, looked up as a loop would, and say where they are from."""

import random

import numpy as np
import pyarrow as pa
import pytest

from captioning.corpus.terms import AXES, NONE, Term, Terms, list_texts, people_terms, read_terms
from captioning.corpus.words import Words

SMALL = Terms(
    [
        *read_terms("gender", "women\twoman, women\nmen\tman, men\n-\tiron man\n"),
        *read_terms("skin", "dark\tdark skinned, dark skin\nblack\tblack woman\n"),
        *read_terms("nation", "polish\tPolish\nafrican\tafrican, south african man\n"),
    ]
)


def found_in(terms, *texts):
    found = terms.find(Words.of(pa.array(texts, pa.string())))
    rows = [set() for _ in texts]
    for row, term in zip(found.texts.tolist(), found.terms.tolist(), strict=True):
        rows[row].add(f"{terms.terms[term].axis} {terms.terms[term].text}")
    return rows


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("A Woman's hat", {"gender woman"}),
        ("WOMEN and men", {"gender women", "gender men"}),
        ("a dark-skinned woman", {"gender woman", "skin dark skinned"}),
        ("a black woman", {"gender woman", "skin black woman"}),
        ("iron man", set()),
        ("Iron Man and a man", {"gender man"}),
        ("nail polish", set()),
        ("Polish food", {"nation Polish"}),
        ("an african man", {"gender man", "nation african"}),
        ("a south african man", {"gender man", "nation south african man"}),
        ("womanly manly", set()),
        (None, set()),
        ("dark", set()),
    ],
)
def test_the_longest_term_of_an_axis_counts(text, terms):
    assert found_in(SMALL, text) == [terms]


def test_a_term_does_not_reach_into_the_next_text():
    assert found_in(SMALL, "so dark", "skinned woman", "black", "woman") == [
        set(),
        {"gender woman"},
        set(),
        {"gender woman"},
    ]


def test_a_text_that_repeats_a_term_counts_once_and_groups_gather_terms():
    found = SMALL.find(Words.of(pa.array(["woman woman women man", "men"])))
    assert dict(zip((t.text for t in SMALL.terms), found.counts().tolist(), strict=True))["woman"] == 1
    groups = found.mapped(SMALL.group_of, len(SMALL.groups))
    assert dict(zip(SMALL.groups, groups.counts().tolist(), strict=True)) == {
        ("gender", "women"): 1,
        ("gender", "men"): 2,
        ("skin", "dark"): 0,
        ("skin", "black"): 0,
        ("nation", "polish"): 0,
        ("nation", "african"): 0,
    }


def test_no_terms_and_no_texts():
    assert found_in(Terms([]), "a woman") == [set()]
    assert people_terms().find(Words.of(pa.array([], pa.string()))).counts().sum() == 0


def slow(terms, text):
    """Return the terms of a text, looked up one word after another, the longest first."""
    words = text.split()
    found = set()
    for axis in {term.axis for term in terms.listed}:
        own = sorted((t for t in terms.listed if t.axis == axis), key=lambda t: -len(t.words))
        covered = set()
        for length in sorted({len(t.words) for t in own}, reverse=True):
            hits = []
            for place in range(len(words) - length + 1):
                here = tuple(
                    w if any(w in t.words for t in terms.listed) else w.lower() for w in words[place:][:length]
                )
                hits += [(place, t) for t in own if t.words == here]
            hits = [(place, t) for place, t in hits if not covered & {*range(place, place + length)}]
            for place, term in hits:
                covered |= {*range(place, place + length)}
                found |= {f"{axis} {term.text}"} if term.group != NONE else set()
    return found


def test_many_random_texts_as_one_by_one():
    draw = random.Random(5)
    terms = people_terms()
    words = [word for term in terms.listed for word in term.words] + ["tree", "Doctor", "and", "BLACK"]
    texts = [" ".join(draw.choices(words, k=draw.randrange(12))) for _ in range(60)]
    assert found_in(terms, *texts) == [slow(terms, text) for text in texts]


@pytest.mark.parametrize("axis", AXES)
def test_every_list_says_its_source_its_licence_and_its_limits(axis):
    text = list_texts()[axis]
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert {line[2:].partition(":")[0] for line in head} >= {"axis", "source", "licence", "limits"}
    assert head[0] == f"# axis: {axis}"
    groups = {term.group for term in read_terms(axis, text)}
    assert len(groups - {NONE}) >= 4


def test_a_word_is_matched_as_written_or_in_any_case_but_not_both():
    words = {word for term in people_terms().listed for word in term.words}
    cased = {word for word in words if word != word.lower()}
    assert cased == {"Polish", "Poles"}
    assert np.all([len(term.words) <= 5 for term in people_terms().listed])


@pytest.mark.parametrize("line", ["women woman", "women\twoman, woman", "women\twoman,, women", "women\t..."])
def test_a_wrong_line_is_named(line):
    with pytest.raises(ValueError, match="gender, line 2"):
        list(read_terms("gender", f"# head\n{line}"))


def test_a_term_knows_its_words():
    assert Term("age", "older", ("old", "man")).text == "old man"
