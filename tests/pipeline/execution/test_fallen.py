"""pipeline/execution/fallen.py: each row that was paid for stands in the run once, in a shard or aside, whatever is
planned and killed in which order."""

import os

import pyarrow as pa
import pytest

from manifests.aside import ASIDE, UNDER_WAY, groups
from manifests.schema import schema
from manifests.tombstones import value_digest, write_tombstones
from pipeline.execution import fallen as module
from pipeline.execution.fallen import keep_fallen
from pipeline.execution.reuse import set_aside
from tests.support.groups import aside, journalled, scores
from tests.support.records import put_table, uid

A, B, C, D = ((uid(number), letter) for number, letter in enumerate("abcd"))


def plan(root, *shards, made_by="one", dead=()):
    """Let a plan with these shards take the place of the one before, and settle; return what is said."""
    from manifests.journal import records_of

    set_aside(root, "score", records_of(root, "score"))
    made = [scores(root, f"{n}{len(rows)}{made_by}", rows, made_by, dead) for n, rows in enumerate(shards)]
    journalled(root, *made)
    return keep_fallen(root, "score", "sha256")


def rows(root, made_by="one"):
    return [(key, made_from) for key, made_from, _ in aside(root, made_by=made_by)]


def test_what_falls_out_lies_aside_and_what_comes_back_does_not(tmp_path):
    assert plan(tmp_path, [A, B], [C, D]) == []
    (said,) = plan(tmp_path, [A, C])
    assert said.startswith(
        "score: 2 rows fell out of the plan and are set aside in aside/score, with what was there 2 "
    )
    assert rows(tmp_path) == [B, D]
    assert not (tmp_path / UNDER_WAY).exists()
    assert plan(tmp_path, [A, B, C]) == ["score: 1 rows that were set aside are back in its shards"]
    assert rows(tmp_path) == [D]
    assert plan(tmp_path, [A, B], [C, D]) == ["score: 1 rows that were set aside are back in its shards"]
    assert not (tmp_path / ASIDE).exists()


def test_rounds_pile_up_no_copies(tmp_path):
    plan(tmp_path, [A, B, C, D])
    sizes = []
    for _ in range(4):
        plan(tmp_path, [A])
        assert rows(tmp_path) == [B, C, D]
        plan(tmp_path, [A, B])
        assert rows(tmp_path) == [C, D]
        sizes.append(sum(path.stat().st_size for path in (tmp_path / ASIDE).rglob("*") if path.is_file()))
    assert len(set(sizes)) == 1
    assert sum(group.rows for group in groups(tmp_path, ASIDE, "score")) == 2


def test_a_group_of_which_all_rows_fell_out_is_linked_as_it_is(tmp_path):
    plan(tmp_path, [A, B])
    shard = next((tmp_path / "scores").iterdir())
    plan(tmp_path, [A, B], made_by="other")
    (group,) = groups(tmp_path, ASIDE, "score")
    assert (group.made_by, group.rows, group.damaged()) == ("one", 2, [])
    assert (group.folder / group.table).stat().st_ino == shard.stat().st_ino  # the same bytes on disk
    assert rows(tmp_path) == [A, B]
    back, fallen = plan(tmp_path, [A, B])
    assert back == "score: 2 rows that were set aside are back in its shards"
    assert fallen.startswith("score: 2 rows fell out")  # the other model's
    assert (rows(tmp_path), rows(tmp_path, "other")) == ([], [A, B])


def test_rows_of_another_picture_lie_aside_beside_the_new_ones(tmp_path):
    plan(tmp_path, [A, B])
    plan(tmp_path, [(A[0], "new"), B])
    assert rows(tmp_path) == [A]


def test_rows_whose_worker_died_are_no_work_to_keep(tmp_path):
    plan(tmp_path, [A, B], dead=[A[0]])
    plan(tmp_path, [C])
    assert rows(tmp_path) == [B]


def test_rows_on_an_exclusion_list_are_let_go_with_a_word(tmp_path):
    plan(tmp_path, [A, B, C])
    entries = [{"uid": A[0], "reason": "removed"}, {"uid": B[0], "reason": "size"}, {"uid": None, "reason": "removed"}]
    put_table(tmp_path, "select", "ledger/select/0.parquet", entries, pa.schema([*schema("uid", "reason")]))
    said = plan(tmp_path, [C])
    assert said[0] == "score: 1 rows that were set aside are let go: an exclusion list or a tombstone names them"
    assert rows(tmp_path) == [B]


def test_rows_of_tombstones_that_hold_a_digest_alone_are_let_go(tmp_path):
    plan(tmp_path, [A, B, C])
    entries = [{"uid": B[0], "reason": "size"}, {"uid": None, "reason": "removed"}]
    put_table(tmp_path, "select", "ledger/select/0.parquet", entries, pa.schema([*schema("uid", "reason")]))
    write_tombstones(tmp_path, [{"kind": "uid", "value_sha256": value_digest(A[0].hex())}])
    said = plan(tmp_path, [C])
    assert said[0] == "score: 1 rows that were set aside are let go: an exclusion list or a tombstone names them"
    assert rows(tmp_path) == [B]


def test_rows_of_tombstones_are_let_go_though_no_ledger_holds_their_uids(tmp_path):
    plan(tmp_path, [A, B, C])
    entries = [{"uid": B[0], "reason": "size"}, {"uid": None, "reason": "removed"}]
    put_table(tmp_path, "select", "ledger/select/0.parquet", entries, pa.schema([*schema("uid", "reason")]))
    write_tombstones(tmp_path, [{"kind": "md5", "value_sha256": "0" * 64, "uid": A[0]}])
    said = plan(tmp_path, [C])
    assert said[0] == "score: 1 rows that were set aside are let go: an exclusion list or a tombstone names them"
    assert rows(tmp_path) == [B]


def test_small_groups_are_put_together_up_to_a_bound_with_each_uid_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    several = [[(uid(3 * n + place), "x") for place in range(3)] for n in range(4)]
    plan(tmp_path, *several)
    plan(tmp_path, *[shard[:1] for shard in several])
    assert sorted(group.rows for group in groups(tmp_path, ASIDE, "score")) == [2, 3, 3]
    plan(tmp_path, [(uid(0), "y"), (uid(50), "x")])
    plan(tmp_path, [(uid(50), "x")])
    found = groups(tmp_path, ASIDE, "score")
    assert sum(group.rows for group in found) == 13  # rows 0 to 11, and row 0 of another picture
    assert len(rows(tmp_path)) == 13


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_kill_at_any_rename_loses_nothing(tmp_path, monkeypatch, stop):
    plan(tmp_path, [A, B], [C, D])
    plan(tmp_path, [A, B], [C])
    real, count = os.replace, []

    def replace(source, target):
        count.append(target)
        if len(count) == stop:
            raise KeyboardInterrupt
        real(source, target)

    from manifests.journal import records_of

    set_aside(tmp_path, "score", records_of(tmp_path, "score"))
    journalled(tmp_path, scores(tmp_path, "new", [A, D]))
    monkeypatch.setattr("manifests.files.os.replace", replace)
    try:
        keep_fallen(tmp_path, "score", "sha256")
    except KeyboardInterrupt:
        monkeypatch.undo()
        keep_fallen(tmp_path, "score", "sha256")
    assert rows(tmp_path) == [B, C]
    assert all(group.damaged() == [] for group in groups(tmp_path, ASIDE, "score"))


def test_a_damaged_group_is_named_and_its_rows_are_not_blessed_anew(tmp_path):
    plan(tmp_path, [A, B, C])
    plan(tmp_path, [C])
    (group,) = groups(tmp_path, ASIDE, "score")
    path = group.folder / group.table
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(bytes(data))
    said = plan(tmp_path, [A, C])  # B is to be copied into a group of its own
    assert said[0] == f"warning: score: aside/score/{group.table} is damaged: none of its rows is used"
    assert [g.name for g in groups(tmp_path, ASIDE, "score")] == [group.name]  # for verify and repair


def test_what_a_kill_left_without_a_record_goes(tmp_path):
    folder = tmp_path / ASIDE / "score"
    folder.mkdir(parents=True)
    (folder / "abc-scores.parquet").write_bytes(b"half a group")
    said = ["score: abc-scores.parquet is dropped: no record says what it is"]
    assert keep_fallen(tmp_path, "score", "sha256") == said
    assert not folder.exists()


def test_a_run_that_changes_nothing_leaves_what_lies_aside_as_it_is(tmp_path):
    plan(tmp_path, [A, B])
    plan(tmp_path, [A])
    before = {path: path.stat().st_ino for path in (tmp_path / ASIDE).rglob("*")}
    assert keep_fallen(tmp_path, "score", "sha256") == []
    assert {path: path.stat().st_ino for path in (tmp_path / ASIDE).rglob("*")} == before
