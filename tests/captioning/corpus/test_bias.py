"""Groups are counted as a loop over texts would, and what is planted lies in its interval."""

import numpy as np
import pyarrow as pa
import pytest

from captioning.corpus.bias import KeptByGroup, Mentions
from captioning.corpus.terms import Terms, read_terms
from captioning.corpus.words import Words

TERMS = Terms([*read_terms("gender", "women\twoman, women\nmen\tman"), *read_terms("work", "doctor\tdoctor, doctors")])


def words(texts):
    return Words.of(pa.array(texts, pa.string()))


def uids(count, start=0):
    return pa.array([n.to_bytes(16, "big") for n in range(start, start + count)], pa.binary(16))


def mentions(*pairs, tops=(), parts=1):
    counted = Mentions(TERMS, examples=2)
    for start in range(0, len(pairs), max(1, len(pairs) // parts)):
        some = pairs[start : start + max(1, len(pairs) // parts)]
        counted.add(words([alt for alt, _ in some]), words([said for _, said in some]), uids(len(some), start))
    counted.add_top(words(list(tops)))
    return {one.group: one for one in counted.facts()}


def test_kept_added_and_removed():
    found = mentions(
        ("a woman", "a person"),
        ("a woman", "the women"),
        ("a tree", "a man by a tree"),
        ("man and doctor", "man and doctor"),
        tops=("a man", "a man", "a cat"),
    )
    women, men, doctor = found["women"], found["men"], found["doctor"]
    assert (women.alt.hits, women.caption.hits, women.kept.hits, women.removed.hits) == (2, 1, 1, 1)
    assert (women.removed.of, women.added.of, women.alt.of) == (2, 2, 4)
    assert (men.added.hits, men.added.of, men.kept.hits, men.kept.of) == (1, 3, 1, 1)
    assert (men.top_caption.hits, men.top_caption.of) == (2, 3)
    assert men.change.value == pytest.approx(0.25)
    assert doctor.change.value == 0
    assert women.examples == {"removed": [uids(1).to_pylist()[0].hex()], "added": []}
    assert men.examples["added"] == [uids(1, 2).to_pylist()[0].hex()]
    terms = {one.term: (one.alt, one.caption, one.removed.hits) for one in women.terms}
    assert terms == {"woman": (2, 0, 2), "women": (0, 1, 0)}


def test_batches_give_what_one_does_and_few_examples():
    pairs = [("a woman", "a tree"), ("a tree", "a doctor"), ("a man", "a man")] * 20
    assert mentions(*pairs, parts=1) == mentions(*pairs, parts=20)
    assert len(mentions(*pairs)["women"].examples["removed"]) == 2


def test_nothing_is_said_of_nothing():
    assert mentions() == {}
    assert mentions(("a tree", "a bush")) == {}


@pytest.mark.parametrize("removed", [0.3, 0.0, 1.0])
def test_a_planted_share_lies_in_its_interval(removed):
    draw = np.random.default_rng(11)
    pairs = [("a doctor here", "a person here" if draw.random() < removed else "a doctor there") for _ in range(3000)]
    doctor = mentions(*pairs)["doctor"]
    assert doctor.removed.low <= removed <= doctor.removed.high
    assert doctor.removed.high - doctor.removed.low < 0.05
    assert doctor.apart == (removed > 0)


def test_what_comes_and_goes_as_often_is_no_change():
    draw = np.random.default_rng(12)
    apart = 0
    for _ in range(200):
        alt, said = draw.random((2, 500)) < 0.1
        pairs = [("a man" if a else "a tree", "a man" if s else "a tree") for a, s in zip(alt, said, strict=True)]
        apart += mentions(*pairs)["men"].apart
    assert apart <= 20  # 5 % of 200, and the binomial's spread


def kept(texts, judged, kept_, scores):
    counted = KeptByGroup(TERMS, examples=1)
    numbers = np.array(judged), np.array(kept_), np.array(scores, float)
    counted.add(words(texts), *numbers, uids(len(texts)))
    return counted, {one.group: one for one in counted.facts()}


def test_kept_rows_and_scores_by_group():
    none = float("nan")
    counted, found = kept(
        ["a woman", "a woman", "a woman", "a man", "a man", "a tree"],
        [True, True, False, True, True, True],
        [True, False, False, True, True, False],
        [6.0, 4.0, 9.0, 5.0, none, 7.0],
    )
    women, men = found["women"], found["men"]
    assert (counted.rows, counted.kept_share.hits, counted.kept_share.of) == (6, 3, 5)
    assert (women.rows, women.kept.hits, women.kept.of, women.others.hits, women.others.of) == (3, 1, 2, 2, 3)
    assert (women.aesthetic.of, women.aesthetic.mean, women.aesthetic_others.mean) == (2, 5.0, 6.0)
    assert (men.kept.rate, men.aesthetic.of, men.aesthetic.low) == (1.0, 1, None)
    (term,) = women.terms
    assert (term.term, term.rows, term.kept, term.aesthetic) == ("woman", 3, women.kept, women.aesthetic)
    assert women.examples == {"dropped": [uids(1, 1).to_pylist()[0].hex()]}
    assert "doctor" not in found


def test_a_filter_that_favours_a_group_is_seen_and_a_fair_one_seldom():
    draw = np.random.default_rng(13)
    texts = draw.choice(["a woman", "a man", "a doctor", "a tree"], 4000).tolist()
    all_rows = np.ones(4000, bool)
    favours = np.array([draw.random() < (0.9 if "woman" in text else 0.8) for text in texts])
    women = kept(texts, all_rows, favours, draw.normal(5, 1, 4000))[1]["women"]
    assert women.apart
    assert women.difference.low <= 0.1 <= women.difference.high
    unfair = 0
    for _ in range(60):
        fair = draw.random(4000) < 0.8
        found = kept(texts, all_rows, fair, draw.normal(5, 1, 4000))[1]
        unfair += sum(one.difference.apart + one.aesthetic_difference.apart for one in found.values())
    assert unfair <= 35  # 5 % of 360 is 18
