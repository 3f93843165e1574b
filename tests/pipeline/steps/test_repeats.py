"""One caption over different pictures is counted once for each pHash, over shards and both attempts."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioning.corpus.words import caption_keys
from manifests.schema import schema
from manifests.tables import ATTEMPTED
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Unit
from pipeline.recipes.load import parse_recipe
from pipeline.steps.repeats import TABLE, Repeats, repeated
from tests.support.records import put_table, uid

UNIT = Unit("00000", {}, "", "key")
SAID = {1: "A cat.", 2: "a cat", 3: "A CAT!", 4: "A dog.", 5: "A dog.", 6: None, 7: "…", 8: "A bird."}
"""Picture -> caption; 1 to 4 lie in shard 00000, the rest in 00001."""
PHASH = {1: 1, 2: 2, 3: 2, 4: 4, 5: 5, 6: 6, 7: 7, 8: 8}
"""2 and 3 are one picture."""


def key(text):
    return caption_keys(pa.array([text])).to_pylist()[0]


@pytest.fixture
def step(tmp_path):
    """Return the step over two shards of llava, one of another captioner and one of second attempts."""
    for shard, numbers in (("00000", range(1, 5)), ("00001", range(5, 9))):
        hashes = [{"uid": uid(n), "phash": PHASH[n]} for n in reversed(numbers)]
        put_table(tmp_path, "score", f"scores/{shard}.parquet", hashes, schema("uid", "phash"))
        said = [{"uid": uid(n), "text": SAID[n]} for n in numbers]
        put_table(tmp_path, "caption", f"captions/attempts/llava-{shard}.parquet", said, ATTEMPTED)
    other = [{"uid": uid(1), "text": "A cat."}, {"uid": uid(2), "text": "A bird."}]
    put_table(tmp_path, "caption", "captions/attempts/my_own-00000.parquet", other, ATTEMPTED)
    again = [{"uid": uid(7), "text": "a bird"}]
    put_table(tmp_path, "recaption", "captions/retries/llava-00001.parquet", again, ATTEMPTED)
    return Repeats(parse_recipe({"tier": {"a": {"size": 16}}}), tmp_path)


def test_captions_are_counted_over_different_pictures_by_captioner(step):
    record = step.run(UNIT, InFlight())
    assert (record.rows_in, record.rows_out, record.dropped) == (9, 9, {})
    found = pq.read_table(step.root / TABLE).to_pylist()
    assert {(row["captioner"], row["key"]): row["pictures"] for row in found} == {
        ("llava", key("a cat")): 2,
        ("llava", key("a dog")): 2,
        ("llava", key("a bird")): 2,
    }
    assert [row["key"] for row in found] == sorted(row["key"] for row in found)


def test_the_same_bytes_come_out_again(step):
    first = step.run(UNIT, InFlight()).files
    assert step.run(UNIT, InFlight()).files == first


def test_a_unit_asks_for_its_own_captions(step):
    step.run(UNIT, InFlight())
    keys = caption_keys(pa.array(["A cat", None, "nobody said so", "a bird"]))
    assert repeated(step.root, "llava", keys).tolist() == [2, 1, 1, 2]
    assert repeated(step.root, "my_own", keys).tolist() == [1, 1, 1, 1]


def test_without_a_count_nothing_repeats(tmp_path):
    assert repeated(tmp_path, "llava", caption_keys(pa.array(["A cat", "A dog"]))).tolist() == [1, 1]


def test_no_captions_leave_an_empty_table(tmp_path):
    step = Repeats(parse_recipe({"tier": {"a": {"size": 16}}}), tmp_path)
    assert step.run(UNIT, InFlight()).rows_in == 0
    assert pq.read_table(tmp_path / TABLE).num_rows == 0
    assert repeated(tmp_path, "llava", caption_keys(pa.array(["A cat"]))).tolist() == [1]


def test_only_a_recipe_with_a_bound_has_it_counted_and_the_bound_is_in_no_key(step):
    assert step.plan() == []
    few, many = (
        Repeats(parse_recipe({"tier": {"a": {"size": 16}}, "caption": {"audit": {"max_repeats": bound}}}), step.root)
        for bound in (2, 50)
    )
    (unit,) = few.units()
    assert [unit] == many.units()
    put_table(step.root, "recaption", "captions/retries/llava-00000.parquet", [], ATTEMPTED)
    assert few.units() != [unit]  # other captions, other counts
