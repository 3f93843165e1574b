"""What other thresholds would leave of captions equals a rerun; pictures that would be asked anew are open."""

import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from manifests.schema import schema
from pipeline.analysis.whatif_captions import ask_captions
from pipeline.execution.step import note_step
from pipeline.recipes.load import parse_recipe
from pipeline.steps.caption import CaptionStep
from pipeline.steps.judge import JudgeStep
from pipeline.steps.measure import Measure, Remeasure
from pipeline.steps.recaption import Recaption
from pipeline.steps.repeats import Repeats
from tests.support.attempts import do_step, put_attempts, put_texts
from tests.support.records import put_table, uid

SAYS = (
    "A fine cat sits on a mat.",
    "cat",
    "two words",
    "As an AI I cannot say what this is.",
    "a big dog a big dog a big dog",
    "",
    "alt text number seven",
    "A cat \ufffd sits here.",
    "A fine cat sits on a mat!",
)
AGAIN = (
    "A large cat sits.",
    "dog",
    "I'm sorry, I am only a model.",
    "A fine cat sits on a mat",
    "a b a b a b a b a b a b",
)
PICTURES = 60
BASE = {"min_words": 3}


def recipe_of(root, gate, audit=None):
    values = {"llava": {"model": "stand-in"}, "gate": gate, "audit": audit or {}}
    return parse_recipe(
        {"output": {"root": str(root)}, "caption": values, "tier": {"fine": {"size": 16, "caption": "llava"}}}
    )


def first_of(number):
    return None if number % 19 == 18 else SAYS[number % len(SAYS)]


def rerun(root, gate, audit=None):
    """Do the steps behind the first attempts with a captioner of fixed words, and note their settings."""
    recipe = recipe_of(root, gate, audit)
    do_step(Measure(recipe, root))
    planned = [
        uid for unit in Recaption(recipe, root).plan() for uid in pq.read_table(root / unit.reads["plan"])["uid"]
    ]
    numbers = [one.as_py()[0] for one in planned]
    Recaption(recipe, root).journal.forget_others(())
    if numbers:
        said = {number: AGAIN[number % len(AGAIN)] for number in numbers}
        step = Recaption(recipe, root)
        prompt = step.prompt("llava").name
        put_attempts(root, said, second=True, prompt=prompt, seed=recipe.caption.gate.second_seed)
    for kind in (Remeasure, Repeats, JudgeStep):
        do_step(kind(recipe, root))
    for kind in (CaptionStep, Measure, Recaption, Remeasure, Repeats, JudgeStep):
        note_step(kind(recipe, root))
    return ask_captions(recipe).funnels["llava"].now, set(numbers)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a run folder of sixty captioned pictures, every third of them the same one, and who was asked again."""
    root = tmp_path_factory.mktemp("captions")
    texts = [(f"alt text number {'seven' if n % 2 else n}", f"top {n}" if n % 3 else None) for n in range(PICTURES)]
    put_texts(root, [(alt if n % 7 else None, top) for n, (alt, top) in enumerate(texts)])
    hashes = [{"uid": uid(n), "phash": n // 3} for n in range(PICTURES)]
    put_table(root, "score", "scores/00000.parquet", hashes, schema("uid", "phash"))
    put_attempts(root, {n: first_of(n) for n in range(PICTURES)})
    _, asked = rerun(root, BASE)
    return root, asked


GATES = [
    ({}, None),
    (BASE, {"max_repeats": 2}),
    (BASE, {"max_repeats": 1}),
    ({"min_words": 0}, None),
    ({"min_words": 2}, {"max_repeats": 3}),
    ({"after_retry": "keep"}, None),
    ({"after_retry": "fall_back"}, {"max_repeats": 2}),
    ({"actions": {"too_short": "drop_caption"}}, None),
    ({"actions": {"too_short": "fall_back", "refusal": "keep"}}, None),
    ({"actions": {"copies_alt": "fall_back", "non_printable": "keep"}}, None),
    ({"max_repeats": 4}, {"max_repeats": 2}),
    ({"actions": {"repeated": "drop_caption", "empty": "keep"}, "min_words": 1}, None),
    ({"actions": {"repeated_in_corpus": "fall_back"}}, {"max_repeats": 1}),
    ({"actions": dict.fromkeys(("too_short", "refusal", "repeated"), "keep")}, {"max_repeats": 1}),
    ({"min_words": 5}, None),
    ({"min_words": 7, "actions": {"copies_alt": "retry"}}, {"max_repeats": 1}),
    ({"retry_seed": 9}, None),
    ({"retry_prompt": "one_sentence_v1"}, None),
]


@pytest.mark.parametrize(("gate", "audit"), GATES)
def test_what_it_answers_is_what_a_rerun_gives(run, tmp_path, gate, audit):
    root, before = run
    gate = {**BASE, **gate}
    answer = ask_captions(recipe_of(root, gate, audit)).funnels["llava"]
    shutil.copytree(root, tmp_path / "run")
    made, asked = rerun(tmp_path / "run", gate, audit)
    other = "retry_seed" in gate or "retry_prompt" in gate
    assert answer.open == len(asked if other else asked - before)
    assert answer.now.pictures == PICTURES
    if not answer.open:
        assert answer.then == made
    then = answer.then
    assert then.pictures == then.captions + sum(then.dropped.values()) + answer.open


def test_most_gates_ask_nobody_anew(run):
    root, _ = run
    opened = [ask_captions(recipe_of(root, {**BASE, **gate}, audit)).funnels["llava"].open for gate, audit in GATES]
    assert opened.count(0) == len(GATES) - 4


def test_nothing_is_written_and_what_differs_is_named(run):
    root, _ = run
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    answer = ask_captions(recipe_of(root, {"min_words": 4, "actions": {"refusal": "keep"}}, {"max_repeats": 2}))
    assert answer.changed == [
        "caption.gate.min_words: 3 -> 4",
        "caption.audit.max_repeats: none -> 2",
        "caption.gate.actions.refusal: retry -> keep",
    ]
    assert answer.notes == []
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_questions_are_not_answered_for(run, tmp_path):
    root, _ = run
    recipe = recipe_of(root, BASE)
    other = parse_recipe({**recipe.plain(), "caption": {"llava": {"model": "stand-in", "prompt": "one_sentence_v1"}}})
    answer = ask_captions(other)
    assert (answer.funnels, answer.notes) == (
        {},
        ["captions: other questions or captioners would be asked than in this run"],
    )
    assert ask_captions(recipe_of(tmp_path, BASE)).funnels == {}
    assert replace(answer, notes=[]).changed == []


def test_a_scorer_that_the_run_did_not_have_makes_no_exact_answer(tmp_path):
    put_texts(tmp_path, [("x", None)] * 3)
    put_attempts(tmp_path, {0: "A cat sits.", 1: "A dog lies.", 2: "x"})
    rerun(tmp_path, BASE)
    assert not ask_captions(recipe_of(tmp_path, {"min_words": 2})).stale
    asked = ask_captions(recipe_of(tmp_path, {**BASE, "similarity": "conse"}))
    assert asked.stale
    assert "measured anew" in asked.notes[0]
