"""Near duplicates by parts are those that one process finds, to the byte: whatever the parts, kills and removed
pictures."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.hamming import Bands
from manifests.files import write_json, write_table
from manifests.layout import SCRATCH
from manifests.schema import schema
from manifests.tables import MARKS
from manifests.tombstones import write_tombstones
from pipeline.execution import shuffle
from pipeline.execution.in_flight import InFlight
from pipeline.execution.shuffle import here
from pipeline.recipes.load import parse_recipe
from pipeline.steps import dedup, near_frequent, near_legs, near_marked
from pipeline.steps.dedup import Dedup
from pipeline.steps.near import Near
from tests.support.records import put_table, uid

RECIPE = {"dedup": {"radius": 2, "placeholder_min": 0}, "tier": {"a": {"size": 16}}}
LEGS = [
    "near_split",
    "near_counted",
    "near_frequent",
    "near_told",
    "near_listed",
    "near_tables",
    "near_pairs",
    "near_forest",
    "near_roots",
    "near_named",
    "near_labels",
    "near_marked",
]
FAR = 0xFFFF_FFFF_0000_0000


@pytest.fixture(autouse=True)
def by_parts(monkeypatch):
    """Let no picture be clustered in the driver; parts of one row or two, a unit a shard, a sample of few."""
    monkeypatch.setattr(dedup, "HELD_ROWS", 0)
    for module in (near_legs, near_frequent, near_marked):
        monkeypatch.setattr(module, "GROUP_ROWS", 1)
    monkeypatch.setattr(shuffle, "SLICE_BYTES", 40)


def put_scores(root, *shards):
    """Write shards of (number of the uid, pHash)."""
    for number, rows in enumerate(shards):
        table = [{"uid": uid(one), "phash": value} for one, value in rows]
        put_table(root, "score", f"scores/{number:05d}.parquet", table, schema("uid", "phash"))


def clusters(root, do=here):
    """Return number of the uid -> number of its cluster's, as dedup writes them."""
    step = Dedup(parse_recipe(RECIPE), root)
    (unit,) = step.units()
    step.journal.record(step.do_unit(unit, do))
    table = pq.read_table(root / "dedup" / "00000.parquet")
    return {one[0]: of[0] for one, of in zip(*(table[name].to_pylist() for name in ("uid", "cluster")), strict=True)}


def test_chains_over_shards_and_equal_hashes_have_their_smallest_uid(tmp_path):
    """9, 5 and 7 are a chain of 2 bits each; 4 and 2 share a pHash, which is near no other; 8 is alone; 6 did not
    open."""
    put_scores(tmp_path, [(9, 0b0), (4, FAR), (6, None)], [(5, 0b11), (8, 0xFFFF)], [(2, FAR), (7, 0b1111)])
    assert clusters(tmp_path) == {2: 2, 4: 2, 5: 5, 7: 5, 8: 8, 9: 5}
    assert not (tmp_path / SCRATCH / "near").exists()


def test_nothing_to_cluster(tmp_path):
    put_scores(tmp_path, [(1, None)])
    assert clusters(tmp_path) == {}


def test_a_table_without_rows_has_the_bytes_that_it_always_had(tmp_path):
    put_scores(tmp_path, [(1, 0b0)], [(2, FAR)])
    clusters(tmp_path)
    write_table(tmp_path / "wanted.parquet", MARKS.empty_table())
    assert (tmp_path / "ledger" / "marks.parquet").read_bytes() == (tmp_path / "wanted.parquet").read_bytes()


def test_removed_pictures_connect_and_bar_as_if_they_were_there(tmp_path):
    """3 was won by a removed picture with a pHash between its own and 4's; another removed one, which lost, has 6's."""
    gone = {"kind": "uid", "value_sha256": "0" * 64}
    write_tombstones(
        tmp_path,
        [
            {**gone, "uid": uid(1), "phash": 0b11, "won": True, "promote": False},
            {**gone, "uid": uid(2), "phash": FAR, "won": False, "promote": False},
            {**gone, "uid": uid(9), "phash": 0xFFFF, "won": True, "promote": False},
        ],
    )
    put_scores(tmp_path, [(3, 0b0), (6, FAR)], [(4, 0b1111), (7, 0xFFFF), (8, FAR ^ 0b11)])
    assert clusters(tmp_path) == {3: 3, 4: 3, 6: 6, 7: 7, 8: 6}
    marks = pq.read_table(tmp_path / "ledger" / "marks.parquet").to_pylist()
    assert [(row["uid"][0], row["reason"]) for row in marks if row["reason"] == "near_duplicate"] == [
        (3, "near_duplicate"),
        (4, "near_duplicate"),
        (7, "near_duplicate"),
    ]


def forged(root, seed, count=200):
    """Write pictures in shards of 50: a third near others, some with the pHash of others, a crowd; texts of which one
    in nine repeats a prompt."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    third = count // 3
    hashes[:third] = hashes[third : 2 * third] ^ (np.uint64(1) << rng.integers(0, 64, third, dtype=np.uint64))
    hashes[third : third + 20] = hashes[-20:]
    hashes[-20:] = rng.integers(0, 64, 20, dtype=np.uint64)
    uids = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    (root / "prompts.txt").write_text("a red cube on a ball\n")
    for number, start in enumerate(range(0, count, 50)):
        rows = [
            {"uid": uids[n].tobytes(), "phash": None if n % 37 == 0 else int(hashes[n])}
            for n in range(start, start + 50)
        ]
        put_table(root, "score", f"scores/{number:05d}.parquet", rows, schema("uid", "phash"))
        words = {True: "a red cube on a ball", False: "a dog"}
        plan = [
            {"uid": row["uid"], "url": f"http://{n}.test", "text": f"{n}", "top_caption": words[n % 9 == 0]}
            for n, row in enumerate(rows, start)
        ]
        path = f"manifests/plan/fetch/{number:05d}.parquet"
        put_table(root, "plan", path, plan, schema("uid", "url", "text", "top_caption"))


def written(root, do=here):
    lists = {"radius": 2, "placeholder_min": 2, "placeholders": ["0" * 16]}
    recipe = {**RECIPE, "dedup": lists, "decontaminate": {"prompts": [str(root / "prompts.txt")]}}
    step = Dedup(parse_recipe(recipe), root)
    (unit,) = step.units()
    record = step.do_unit(unit, do)
    return [(root / file.path).read_bytes() for file in record.files]


def test_parts_of_any_size_write_the_bytes_of_one_process(tmp_path, monkeypatch):
    forged(tmp_path, 0)
    monkeypatch.setattr(dedup, "HELD_ROWS", 200)
    wanted = written(tmp_path)
    monkeypatch.setattr(dedup, "HELD_ROWS", 199)
    for slice_bytes, sample in ((10_000_000, 1 << 17), (900, 60)):
        monkeypatch.setattr(shuffle, "SLICE_BYTES", slice_bytes)
        monkeypatch.setattr(near_legs, "SAMPLE", sample)
        monkeypatch.setattr(near_frequent, "SAMPLE", sample)
        assert written(tmp_path) == wanted
    marks = pq.read_table(pa.BufferReader(wanted[1]))["reason"].to_pylist()
    assert marks.count("in_eval_set") == 23  # 0, 9, … 198
    assert marks.count("placeholder") == 17  # 1 + 6 + 15 of 64 numbers of 6 bits have at most two set
    assert pq.read_table(pa.BufferReader(wanted[2])).num_rows == 23


def test_more_pairs_than_a_worker_holds_are_joined_in_rounds(tmp_path, monkeypatch):
    forged(tmp_path, 5)
    monkeypatch.setattr(shuffle, "SLICE_BYTES", 1000)
    wanted = written(tmp_path)
    monkeypatch.setattr(near_legs, "MOST_PAIRS", 3)
    assert written(tmp_path) == wanted


@pytest.mark.parametrize("tables", [1, 28])
def test_any_cut_into_tables_finds_the_same(tmp_path, monkeypatch, tables):
    """Of the cuts, the one into no tables compares all pairs; 28 tables are every 2 of 8 bands."""
    forged(tmp_path, 3)
    monkeypatch.setattr(shuffle, "SLICE_BYTES", 2000)
    wanted = written(tmp_path)
    masks = {1: (), 28: tuple((0xFF << 8 * one) | (0xFF << 8 * two) for one in range(8) for two in range(one))}[tables]
    monkeypatch.setattr(near_frequent, "choose_tables", lambda *given: Bands(2, (1 << 64) - 1, masks))
    assert written(tmp_path) == wanted


def test_kills_lose_a_unit_each(tmp_path, monkeypatch):
    """Every second call of `do` ends after its first unit: the next attempt goes on there."""
    forged(tmp_path, 4)
    monkeypatch.setattr(shuffle, "SLICE_BYTES", 3000)
    wanted, did, draw = written(tmp_path), [], random.Random(0)

    def do(step, units):
        did.extend((step.name, unit.name) for unit in units[:1])
        here(step, units[:1])
        if len(units) > 1 and draw.random() < 0.5:
            raise KeyboardInterrupt
        did.extend((step.name, unit.name) for unit in units[1:])
        here(step, units[1:])

    for _ in range(200):
        try:
            got = written(tmp_path, do)
            break
        except KeyboardInterrupt:
            continue
    assert got == wanted
    assert len(did) == len(set(did))  # nothing was done twice
    assert list(dict.fromkeys(name for name, _ in did)) == LEGS


def test_what_was_left_for_other_scores_is_not_taken_up(tmp_path):
    put_scores(tmp_path, [(1, 0b0)], [(2, 0b11)])

    def falls(step, units):
        here(step, units)
        if step.name == "near_named":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clusters(tmp_path, falls)
    put_scores(tmp_path, [(1, 0b0)], [(2, FAR)])
    assert clusters(tmp_path) == {1: 1, 2: 2}


def test_a_finished_unit_runs_in_this_process_too(tmp_path):
    put_scores(tmp_path, [(2, 0b0)], [(1, 0b1)])
    step = Dedup(parse_recipe(RECIPE), tmp_path)
    (unit,) = step.units()
    assert step.open().run(unit, InFlight()).rows_in == 2
    assert pq.read_table(tmp_path / "dedup" / "00000.parquet")["cluster"].to_pylist() == [uid(1), uid(1)]


def test_damaged_facts_of_the_work_are_made_again(tmp_path):
    put_scores(tmp_path, [(2, 0b0)], [(1, 0b1)])
    write_json(tmp_path / SCRATCH / "near" / "stamp.json", {"stamp": "of another run", "rows": 7})
    assert clusters(tmp_path) == {1: 1, 2: 1}


def test_sizes_of_clusters_are_added_up_from_parts(tmp_path):
    """Clusters 2 (two pictures of one pHash) and 5 (three of three), whatever the parts they end in."""
    put_scores(tmp_path, [(9, 0b0), (4, FAR), (6, None)], [(5, 0b11), (8, 0xFFFF)], [(2, FAR), (7, 0b1111)])
    step = Dedup(parse_recipe(RECIPE), tmp_path)
    work = Near(step, step.units()[0], 7, here, grouped=False)
    assert [entry["pictures"] for entry in work.top()] == []  # nothing is known of what stands with them
    assert len(list(work.tables())) == 8  # 7 rows of 45 bytes in parts of 40
    assert work.sizes == (2, 3)
