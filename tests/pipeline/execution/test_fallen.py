"""pipeline/execution/fallen.py: each row that was paid for stands in the run once, in a shard or aside, whatever is
planned and killed in which order."""

import os

import pyarrow as pa
import pytest

from manifests.aside import ASIDE, UNDER_WAY, groups
from manifests.journal import records_of
from manifests.schema import schema
from manifests.store import is_remote
from manifests.tombstones import value_digest, write_tombstones
from pipeline.execution import fallen as module
from pipeline.execution.fallen import keep_fallen
from pipeline.execution.reuse import set_aside
from tests.support.groups import aside, journalled, scores
from tests.support.records import put_table, uid

A, B, C, D = ((uid(number), letter) for number, letter in enumerate("abcd"))


@pytest.fixture
def root(anywhere):
    return anywhere


def plan(root, *shards, made_by="one", dead=()):
    """Let a plan with these shards take the place of the one before, and settle; return what is said."""
    set_aside(root, "score", records_of(root, "score"))
    made = [scores(root, f"{n}{len(rows)}{made_by}", rows, made_by, dead) for n, rows in enumerate(shards)]
    journalled(root, *made)
    return keep_fallen(root, "score", "sha256")


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def rows(root, made_by="one"):
    return [(key, made_from) for key, made_from, _ in aside(root, made_by=made_by)]


def test_what_falls_out_lies_aside_and_what_comes_back_does_not(root):
    assert plan(root, [A, B], [C, D]) == []
    (said,) = plan(root, [A, C])
    assert said.startswith(
        "score: 2 rows fell out of the plan and are set aside in aside/score, with what was there 2 "
    )
    assert rows(root) == [B, D]
    assert files(root / UNDER_WAY) == []
    assert plan(root, [A, B, C]) == ["score: 1 rows that were set aside are back in its shards"]
    assert rows(root) == [D]
    assert plan(root, [A, B], [C, D]) == ["score: 1 rows that were set aside are back in its shards"]
    assert files(root / ASIDE) == []


def test_rounds_pile_up_no_copies(root):
    plan(root, [A, B, C, D])
    sizes = []
    for _ in range(4):
        plan(root, [A])
        assert rows(root) == [B, C, D]
        plan(root, [A, B])
        assert rows(root) == [C, D]
        sizes.append(sum(path.stat().st_size for path in (root / ASIDE).rglob("*") if path.is_file()))
    assert len(set(sizes)) == 1
    assert sum(group.rows for group in groups(root, ASIDE, "score")) == 2


def test_a_group_of_which_all_rows_fell_out_is_linked_as_it_is(root):
    plan(root, [A, B])
    shard = next((root / "scores").iterdir())
    plan(root, [A, B], made_by="other")
    (group,) = groups(root, ASIDE, "score")
    assert (group.made_by, group.rows, group.damaged()) == ("one", 2, [])
    if not is_remote(root):
        assert (group.folder / group.table).stat().st_ino == shard.stat().st_ino  # the same bytes on disk
    assert rows(root) == [A, B]
    back, fallen = plan(root, [A, B])
    assert back == "score: 2 rows that were set aside are back in its shards"
    assert fallen.startswith("score: 2 rows fell out")  # the other model's
    assert (rows(root), rows(root, "other")) == ([], [A, B])


def test_rows_of_a_version_that_knew_the_pictures_digest_alone_lie_aside_too(root):
    plan(root, [A, B])
    set_aside(root, "score", records_of(root, "score"))
    journalled(root)
    (said,) = keep_fallen(root, "score", "made_from")  # a column that the tables of before have not
    assert said.startswith("score: 2 rows fell out of the plan and are set aside")
    assert rows(root) == [A, B]


def test_rows_of_another_picture_lie_aside_beside_the_new_ones(root):
    plan(root, [A, B])
    plan(root, [(A[0], "new"), B])
    assert rows(root) == [A]


def test_rows_whose_worker_died_are_no_work_to_keep(root):
    plan(root, [A, B], dead=[A[0]])
    plan(root, [C])
    assert rows(root) == [B]


def test_rows_on_an_exclusion_list_are_let_go_with_a_word(root):
    plan(root, [A, B, C])
    entries = [{"uid": A[0], "reason": "removed"}, {"uid": B[0], "reason": "size"}, {"uid": None, "reason": "removed"}]
    put_table(root, "select", "ledger/select/0.parquet", entries, pa.schema([*schema("uid", "reason")]))
    said = plan(root, [C])
    assert said[0] == "score: 1 rows that were set aside are let go: an exclusion list or a tombstone names them"
    assert rows(root) == [B]


def test_rows_of_tombstones_that_hold_a_digest_alone_are_let_go(root):
    plan(root, [A, B, C])
    entries = [{"uid": B[0], "reason": "size"}, {"uid": None, "reason": "removed"}]
    put_table(root, "select", "ledger/select/0.parquet", entries, pa.schema([*schema("uid", "reason")]))
    write_tombstones(root, [{"kind": "uid", "value_sha256": value_digest(A[0].hex())}])
    said = plan(root, [C])
    assert said[0] == "score: 1 rows that were set aside are let go: an exclusion list or a tombstone names them"
    assert rows(root) == [B]


def test_rows_of_tombstones_are_let_go_though_no_ledger_holds_their_uids(root):
    plan(root, [A, B, C])
    entries = [{"uid": B[0], "reason": "size"}, {"uid": None, "reason": "removed"}]
    put_table(root, "select", "ledger/select/0.parquet", entries, pa.schema([*schema("uid", "reason")]))
    write_tombstones(root, [{"kind": "md5", "value_sha256": "0" * 64, "uid": A[0]}])
    said = plan(root, [C])
    assert said[0] == "score: 1 rows that were set aside are let go: an exclusion list or a tombstone names them"
    assert rows(root) == [B]


def test_small_groups_are_put_together_up_to_a_bound_with_each_uid_once(root, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    several = [[(uid(3 * n + place), "x") for place in range(3)] for n in range(4)]
    plan(root, *several)
    plan(root, *[shard[:1] for shard in several])
    assert sorted(group.rows for group in groups(root, ASIDE, "score")) == [2, 3, 3]
    plan(root, [(uid(0), "y"), (uid(50), "x")])
    plan(root, [(uid(50), "x")])
    found = groups(root, ASIDE, "score")
    assert sum(group.rows for group in found) == 13  # rows 0 to 11, and row 0 of another picture
    assert len(rows(root)) == 13


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_kill_at_any_rename_loses_nothing(root, monkeypatch, stop):
    plan(root, [A, B], [C, D])
    plan(root, [A, B], [C])
    real, count = os.replace, []

    def replace(source, target):
        count.append(target)
        if len(count) == stop:
            raise KeyboardInterrupt
        real(source, target)

    set_aside(root, "score", records_of(root, "score"))
    journalled(root, scores(root, "new", [A, D]))
    monkeypatch.setattr("manifests.files.os.replace", replace)
    try:
        keep_fallen(root, "score", "sha256")
    except KeyboardInterrupt:
        monkeypatch.undo()
        keep_fallen(root, "score", "sha256")
    assert rows(root) == [B, C]
    assert all(group.damaged() == [] for group in groups(root, ASIDE, "score"))


def test_a_damaged_group_is_named_and_its_rows_are_not_blessed_anew(root):
    plan(root, [A, B, C])
    plan(root, [C])
    (group,) = groups(root, ASIDE, "score")
    path = group.folder / group.table
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(bytes(data))
    said = plan(root, [A, C])  # B is to be copied into a group of its own
    assert said[0] == f"warning: score: aside/score/{group.table} is damaged: none of its rows is used"
    assert [g.name for g in groups(root, ASIDE, "score")] == [group.name]  # for verify and repair


def test_what_a_kill_left_without_a_record_goes(root):
    folder = root / ASIDE / "score"
    folder.mkdir(parents=True)
    (folder / "abc-scores.parquet").write_bytes(b"half a group")
    said = ["score: abc-scores.parquet is dropped: no record says what it is"]
    assert keep_fallen(root, "score", "sha256") == said
    assert files(folder) == []


def test_a_run_that_changes_nothing_leaves_what_lies_aside_as_it_is(root):
    plan(root, [A, B])
    plan(root, [A])
    before = {path: path.stat().st_ino for path in (root / ASIDE).rglob("*")}
    assert keep_fallen(root, "score", "sha256") == []
    assert {path: path.stat().st_ino for path in (root / ASIDE).rglob("*")} == before
