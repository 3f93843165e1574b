"""The caption step with a captioner of fixed words: who is captioned, what stands in a row, what is not said again."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioning.captioner import Caption
from manifests.files import write_table
from manifests.journal import Journal
from manifests.schema import schema
from manifests.shards import write_shard
from pipeline.execution.in_flight import InFlight
from pipeline.execution.reuse import set_aside
from pipeline.execution.step import Unit
from pipeline.recipes.load import parse_recipe
from pipeline.steps.caption import CaptionStep, CaptionWorker
from tests.support.records import put_table, uid
from tests.support.small_web import jpeg, picture

RECIPE = {
    "caption": {"batch_size": 2, "llava": {"model": "stand-in"}},
    "tier": {"broad": {"size": 16}, "fine": {"size": 16, "caption": "llava"}, "best": {"size": 32, "caption": "llava"}},
}


class Words:
    """A captioner that says how wide a picture is, and remembers the sizes of its batches."""

    name, version, model, revision, prompt = "llava", 1, "words", "r", "wide_v1"

    def __init__(self):
        self.batches = []

    def caption(self, images):
        self.batches.append(len(images))
        return [
            Caption(f"It is {image.width} wide. Really.", f"It is {image.width} wide.", ("short",)) for image in images
        ]


@pytest.fixture
def unit(tmp_path):
    """Return the unit of five pictures, 40 to 44 wide; number 3 is none."""
    bodies = [jpeg(picture(n, 40 + n, 48)) for n in range(5)]
    bodies[3] = b"no picture"
    write_shard(tmp_path / "pairs/00000.tar", [(uid(n).hex(), {"jpg": body}) for n, body in enumerate(bodies)])
    write_table(tmp_path / "plan.parquet", pa.table([pa.array(map(uid, range(5)), pa.binary(16))], schema("uid")))
    reads = {"plan": "plan.parquet", "tar": "pairs/00000.tar", "captioner": "llava", "made_by": "x"}
    return Unit("llava-00000", reads, "", "key")


def captioned(root, unit, in_flight=None):
    """Return (the captioner, the record, the rows) of a unit that was captioned."""
    words = Words()
    worker = CaptionWorker(CaptionStep(parse_recipe(RECIPE), root), {"llava": words})
    record = worker.run(unit, in_flight or InFlight())
    return words, record, pq.read_table(root / record.files[0].path).to_pylist()


def test_rows_hold_the_words_and_who_said_them(tmp_path, unit):
    words, record, rows = captioned(tmp_path, unit)
    assert [row["caption"] for row in rows] == [f"It is {n} wide. Really." if n != 43 else None for n in range(40, 45)]
    assert [rows[0][name] for name in ("captioner", "short_caption", "model", "revision", "prompt", "flags")] == [
        "llava",
        "It is 40 wide.",
        "words",
        "r",
        "wide_v1",
        ["short"],
    ]
    assert (rows[3]["captioner"], rows[3]["reason"], rows[3]["model"]) == ("llava", "not_an_image", None)
    assert (record.rows_in, record.rows_out, record.dropped) == (5, 4, {"not_an_image": 1})
    assert words.batches == [2, 1, 1]  # the third batch of two pairs has one picture


def test_a_batch_without_a_picture_does_not_ask_the_captioner(tmp_path, unit):
    words, _, _ = captioned(tmp_path, unit, InFlight(crash_counts={uid(3).hex(): 1}))
    assert words.batches == [2, 2]  # number 3 came alone


def test_a_poisoned_row_says_that_its_worker_died(tmp_path, unit):
    _, record, rows = captioned(tmp_path, unit, InFlight(crash_counts={uid(1).hex(): 3}))
    assert record.dropped == {"not_an_image": 1, "worker_died": 1}
    assert {name: value for name, value in rows[1].items() if value is not None} == {
        "uid": uid(1),
        "captioner": "llava",
        "reason": "worker_died",
    }


def test_words_of_an_earlier_plan_are_not_said_again(tmp_path, unit):
    _, first, _ = captioned(tmp_path, unit)
    set_aside(tmp_path, "caption", [first])
    words, record, _ = captioned(tmp_path, unit)
    assert (words.batches, record.files) == ([], first.files)
    other = replace(unit, reads={**unit.reads, "made_by": "another prompt"})
    assert captioned(tmp_path, other)[0].batches == [2, 1, 1]


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
