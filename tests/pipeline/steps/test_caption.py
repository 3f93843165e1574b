"""The caption step with a captioner of fixed words: who is captioned, what stands in a row, what is not said again."""

import hashlib
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioning.captioner import Answer
from captioning.prompts import fill, prompt_named
from manifests.journal import Journal
from manifests.reasons import ASKED_AGAIN
from manifests.schema import schema
from manifests.shards import write_shard
from manifests.weights import WeightsError
from pipeline.execution.backends import RunnerOptions
from pipeline.execution.in_flight import InFlight
from pipeline.execution.reuse import set_aside
from pipeline.execution.run_folder import write_recipe
from pipeline.execution.step import Unit, note_step
from pipeline.recipes.load import parse_recipe
from pipeline.stages.run import Done
from pipeline.stages.run import _run_step as run_step
from pipeline.steps.asking import made_from
from pipeline.steps.caption import CaptionStep, CaptionWorker
from tests.support.captions import Words, captioned_run, number_of, write_plan
from tests.support.records import put_table, uid
from tests.support.small_web import jpeg, picture

RECIPE = {
    "caption": {"batch_size": 2, "llava": {"model": "stand-in"}},
    "tier": {"broad": {"size": 16}, "fine": {"size": 16, "caption": "llava"}, "best": {"size": 32, "caption": "llava"}},
}


@pytest.fixture
def unit(tmp_path):
    """Return the unit of five pictures, 40 to 44 wide; number 3 is none."""
    bodies = [jpeg(picture(n, 40 + n, 48)) for n in range(5)]
    bodies[3] = b"no picture"
    write_shard(tmp_path / "pairs/00000.tar", [(uid(n).hex(), {"jpg": body}) for n, body in enumerate(bodies)])
    write_plan(tmp_path / "plan.parquet", range(5))
    reads = {"plan": "plan.parquet", "tar": "pairs/00000.tar", "captioner": "llava", "made_by": "x"}
    return Unit("llava-00000", reads, "", "key")


def captioned(root, unit, in_flight=None):
    """Return (the captioner, the record, the rows) of a unit that was captioned."""
    words = Words()
    worker = CaptionWorker(CaptionStep(parse_recipe(RECIPE), root), {"llava": words})
    record = worker.run(unit, in_flight or InFlight())
    return words, record, pq.read_table(root / record.files[0].path).to_pylist()


def test_rows_hold_the_words_the_question_and_who_said_them(tmp_path, unit):
    words, record, rows = captioned(tmp_path, unit)
    question = prompt_named("describe_v1").text
    said = [f"It is {n} wide. {question}" if n != 43 else None for n in range(40, 45)]
    assert [row["text"] for row in rows] == said
    assert {row["prompt_sha256"] for row in rows} == {hashlib.sha256(question.encode()).digest()}
    asked = [rows[0][name] for name in ("captioner", "model", "revision", "prompt", "seed", "tokens", "prompt_tokens")]
    assert asked == ["llava", "words", "r", "describe_v1", 0, 5, 7]
    assert rows[0]["made_from"] == made_from(rows[0]["sha256"], rows[0]["prompt_sha256"], 0)
    assert (rows[3]["captioner"], rows[3]["reason"], rows[3]["prompt"]) == ("llava", "not_an_image", "describe_v1")
    assert (record.rows_in, record.rows_out, record.dropped) == (5, 4, {"not_an_image": 1})
    assert words.asked == [[0, 1], [2, 3], [4]]


def test_a_poisoned_row_says_that_its_worker_died(tmp_path, unit):
    _, record, rows = captioned(tmp_path, unit, InFlight(crash_counts={uid(1).hex(): 3}))
    assert record.dropped == {"not_an_image": 1, "worker_died": 1}
    assert {name for name, value in rows[1].items() if value is not None} == {
        *("uid", "captioner", "prompt", "prompt_sha256", "seed", "reason")
    }
    assert rows[1]["reason"] == "worker_died"


def test_words_of_an_earlier_plan_are_not_said_again(tmp_path, unit):
    _, first, _ = captioned(tmp_path, unit)
    set_aside(tmp_path, "caption", [first])
    words, record, _ = captioned(tmp_path, unit)
    assert (words.asked, record.files) == ([], first.files)
    other = replace(unit, reads={**unit.reads, "made_by": "another model"})
    assert captioned(tmp_path, other)[0].asked == [[0, 1], [2, 3], [4]]
    write_plan(tmp_path / "plan.parquet", range(3), seed=7)
    assert captioned(tmp_path, unit)[0].asked == [[0, 1], [2]]
    write_plan(tmp_path / "plan.parquet", range(3))
    assert captioned(tmp_path, unit)[0].asked == []


def test_a_prompt_of_the_pictures_own_words_is_filled_and_asked_again_when_they_change(tmp_path, unit):
    write_plan(tmp_path / "plan.parquet", range(2), prompt="realign_v1", alt="a red car", top_caption="x")
    _, first, rows = captioned(tmp_path, unit)
    set_aside(tmp_path, "caption", [first])
    filled = fill(prompt_named("realign_v1"), "a red car", "x")
    assert rows[0]["text"] == f"It is 40 wide. {filled}"
    assert rows[0]["prompt_sha256"] == hashlib.sha256(filled.encode()).digest()
    assert captioned(tmp_path, unit)[0].asked == []
    write_plan(tmp_path / "plan.parquet", range(2), prompt="realign_v1", alt="a blue car", top_caption="x")
    assert captioned(tmp_path, unit)[0].asked == [[0, 1]]


def test_captioners_are_loaded_one_at_a_time_in_the_order_of_their_units(tmp_path, monkeypatch):
    built = []

    def build(name, options, batch_size, ahead):
        built.append((name, batch_size, ahead.count))
        return Words()

    monkeypatch.setattr("pipeline.steps.caption.build_captioner", build)
    caption = {"batch_size": 3, "decoders": 2, "b": {"use": "transformers"}, "a": {"use": "transformers"}}
    step = CaptionStep(parse_recipe({"caption": caption, "tier": {"x": {"size": 16, "caption": ["b", "a"]}}}), tmp_path)
    worker = step.open()
    assert built == [("b", 3, 2), ("a", 3, 2)]  # each is found fit; the first in the order of units stays
    assert list(worker.captioners) == ["a"]
    assert worker.captioners["a"] is worker.captioners["a"]
    _ = worker.captioners["b"]
    assert list(worker.captioners) == ["b"]
    assert step.turn(Unit("a-00000", {"captioner": "a"}, "")) == "a"


def test_weights_that_are_gone_since_stop_no_run_that_has_nothing_to_ask(tmp_path, monkeypatch):
    step = CaptionStep(parse_recipe({**RECIPE, "output": {"root": str(tmp_path)}}), tmp_path)
    write_recipe(step.recipe)
    note_step(step)
    key, made_by = step.own_key, step.made_by("llava")

    def gone(name, options):
        raise WeightsError("weights of llava: no folder")

    monkeypatch.setattr("pipeline.steps.caption.captioner_weights", gone)
    again = CaptionStep(step.recipe, tmp_path)
    assert (again.own_key, again.made_by("llava")) == (key, made_by)
    other = {**RECIPE, "caption": {"llava": {"model": "stand-in", "max_new_tokens": 9}}}
    with pytest.raises(WeightsError):
        _ = CaptionStep(parse_recipe(other), tmp_path).own_key


def test_units_are_the_shards_with_kept_rows_of_the_tiers_that_ask(tmp_path):
    final = pa.schema({"shard": pa.string(), "uid": pa.binary(16), "fate": pa.string(), "tiers": pa.list_(pa.string())})
    tiers = {0: ["broad"], 1: ["broad", "fine"], 2: ["best"], 3: []}
    rows = [
        {"shard": f"{n // 2:05d}", "uid": uid(n), "fate": "kept" if names else "dropped", "tiers": names}
        for n, names in tiers.items()
    ]
    put_table(tmp_path, "decide", "ledger/final/00000.parquet", rows, final)
    for shard in ("00000", "00001"):
        put_table(tmp_path, "fetch", f"pairs/{shard}.parquet", [], schema("uid"))
    step = CaptionStep(parse_recipe(RECIPE), tmp_path)
    units = step.plan()
    assert step.captioners() == {"llava": ["fine", "best"]}
    assert [unit.name for unit in units] == ["llava-00000", "llava-00001"]
    assert units[1].reads == {
        "plan": "manifests/plan/caption/llava-00001.parquet",
        "tar": "pairs/00001.tar",
        "captioner": "llava",
        "made_by": step.made_by("llava"),
    }
    planned = [pq.read_table(tmp_path / unit.reads["plan"])["uid"].to_pylist() for unit in units]
    assert planned == [[uid(1)], [uid(2)]]
    record = Journal(tmp_path, "fetch").get("00001")
    Journal(tmp_path, "fetch").record(replace(record, files=(replace(record.files[0], sha256="other"),)))
    assert [a.content == b.content for a, b in zip(units, step.plan(), strict=True)] == [True, False]


def test_another_prompt_makes_other_words_and_other_tiers_do_not(tmp_path):
    def made_by(caption, tiers):
        return CaptionStep(parse_recipe({"caption": caption, "tier": tiers}), tmp_path).made_by("llava")

    before = made_by(RECIPE["caption"], RECIPE["tier"])
    assert made_by(RECIPE["caption"], {"fine": RECIPE["tier"]["fine"]}) == before
    assert made_by({**RECIPE["caption"], "llava": {"model": "stand-in", "max_new_tokens": 7}}, RECIPE["tier"]) != before


class Failing(Words):
    """Fails with some pictures as an endpoint does that is away."""

    def __init__(self, fails):
        super().__init__(4)
        self.fails = fails

    def _answer(self, ask):
        return Answer(ask.uid, reason=ASKED_AGAIN[-1]) if number_of(ask.uid) in self.fails else super()._answer(ask)


def test_a_later_run_asks_again_for_what_may_have_passed_and_for_nothing_else(tmp_path, monkeypatch):
    step = captioned_run(tmp_path, rows=5)
    monkeypatch.setattr(type(step), "beam", False)
    asked = []

    def run(fails):
        words = Failing(fails)
        monkeypatch.setattr(type(step), "open", lambda self: CaptionWorker(self, {"llava": words}))
        run_step(step, RunnerOptions(), Done())
        asked.append(sorted(number for batch in words.asked for number in batch))
        return {path.name: path.read_bytes() for path in (tmp_path / "captions/attempts").iterdir()}

    run({3, 4, 17})
    run({17})
    whole = run(())
    assert asked == [list(range(30)), [3, 4, 17], [17]]
    assert run(()) == whole
    assert asked[-1] == []
    rows = pq.read_table(tmp_path / "captions/attempts").to_pylist()
    assert [row["reason"] for row in rows] == [None] * 30
    assert not (tmp_path / ".partial").exists() or not list((tmp_path / ".partial").iterdir())
