"""The loop that every worker goes through: batches of a fixed size, what is in hand when, and which rows come from
where."""

import hashlib
from functools import partial

import pytest

from pipeline.execution.decode_pool import Decoders
from pipeline.execution.in_flight import InFlight, Part, read_part
from pipeline.steps.worker_loop import WorkerLoop, complete

PAIRS = [(bytes([number]) * 16, b"data %d" % number) for number in range(7)]
UIDS = [uid for uid, _ in PAIRS]


class Diary(InFlight):
    """InFlight that writes into a list what is in hand, by first bytes; [] when nothing is."""

    def __init__(self, crash_counts=()):
        super().__init__(None, {UIDS[number].hex(): count for number, count in dict(crash_counts).items()})
        self.lines = []

    def _write(self, held):
        self.lines.append([int(uid[:2]) for uid in held.get("uids", [])])


def begin(diary, pairs, values):
    """Note in the diary when a batch is begun and finished; its rows hold what `work` made of the bytes."""
    batch = "".join(str(uid[0]) for uid, _ in pairs)
    diary.lines.append(f"begin {batch}")

    def finish():
        diary.lines.append(f"finish {batch}")
        return {uid: {"uid": uid, "made": value} for (uid, _), value in zip(pairs, values, strict=True)}

    return finish


def looped(diary, earlier=None, **options):
    loop = WorkerLoop("unit", diary, 3, bytes.upper, **options)
    return loop.run(iter(PAIRS), earlier or {}, partial(begin, diary))


def test_batches_have_the_size_and_each_is_in_hand_from_begin_to_finish():
    diary = Diary()
    rows = looped(diary)
    assert [rows[uid]["made"] for uid in UIDS] == [b"DATA %d" % number for number in range(7)]
    assert diary.lines == [
        [0, 1, 2], "begin 012", "finish 012", [],
        [3, 4, 5], "begin 345", "finish 345", [],
        [6], "begin 6", "finish 6", [],
    ]  # fmt: skip


def test_ahead_a_batch_is_begun_before_the_one_before_is_finished_with_both_in_hand():
    diary = Diary()
    assert looped(diary, ahead=True) == looped(Diary())
    assert diary.lines == [
        [0, 1, 2], "begin 012", [],
        [0, 1, 2, 3, 4, 5], "begin 345", "finish 012", [],
        [3, 4, 5, 6], "begin 6", "finish 345", [],
        [6], "finish 6", [],
    ]  # fmt: skip


@pytest.mark.parametrize("ahead", [False, True])
def test_rows_with_which_workers_died_are_alone_in_hand_after_the_others(ahead):
    diary = Diary({1: 1, 4: 2})
    rows = looped(diary, ahead=ahead)
    assert sorted(rows) == UIDS
    assert [line for line in diary.lines if isinstance(line, str) and line.startswith("begin")] == [
        "begin 023",
        "begin 56",
        "begin 1",
        "begin 4",
    ]
    assert [line for line in diary.lines if not isinstance(line, str) and (1 in line or 4 in line)] == [[1], [4]]


def test_a_poisoned_row_is_not_touched_and_its_neighbours_are_made():
    diary = Diary({2: 3})
    rows = looped(diary)
    assert sorted(rows) == [uid for uid in UIDS if uid != UIDS[2]]
    assert not any(2 in line for line in diary.lines if not isinstance(line, str))


def test_an_earlier_row_is_carried_over_where_the_bytes_are_the_same():
    digests = [hashlib.sha256(data).digest() for _, data in PAIRS]
    earlier = {
        (UIDS[0], digests[1]): {"uid": UIDS[0], "sha256": digests[1], "made": b"of other bytes"},
        (UIDS[0], digests[0]): {"uid": UIDS[0], "sha256": digests[0], "made": b"before"},
        (UIDS[1], digests[2]): {"uid": UIDS[1], "sha256": digests[2], "made": b"of other bytes"},
    }
    diary = Diary()
    rows = looped(diary, earlier)
    assert rows[UIDS[0]] == {"uid": UIDS[0], "sha256": digests[0], "made": b"before"}
    assert [rows[uid]["made"] for uid in UIDS[1:4]] == [b"DATA 1", b"DATA 2", b"DATA 3"]
    assert diary.lines[1] == "begin 123"  # batches are cut from what is left to do


def test_decoders_have_the_next_batch_before_this_one_is_begun():
    class Noting(Decoders):
        def begin(self, jpegs, work):
            diary.lines.append(f"decode {len(jpegs)}")
            return super().begin(jpegs, work)

    diary = Diary()
    looped(diary, decoders=Noting(0))
    assert [line for line in diary.lines if isinstance(line, str) and not line.startswith("finish")] == [
        "decode 3", "decode 3", "begin 012", "decode 1", "begin 345", "begin 6",
    ]  # fmt: skip


def test_no_rows_no_batch():
    diary = Diary()
    assert WorkerLoop("unit", diary, 3, bytes.upper, ahead=True).run([], {}, partial(begin, diary)) == {}
    assert diary.lines == []


def test_planned_rows_come_in_their_order_and_the_dead_say_so():
    rows = {UIDS[1]: {"uid": UIDS[1], "draw": 9, "made": b"x", "reason": None}}
    planned = [{"uid": UIDS[2], "draw": 1}, {"uid": UIDS[1], "draw": 2}, {"uid": UIDS[0], "reason": "missing_value"}]
    assert complete(planned, rows) == [
        {"uid": UIDS[2], "draw": 1, "reason": "worker_died"},
        {"uid": UIDS[1], "draw": 2, "made": b"x", "reason": None},  # the plan's draw, not an older plan's
        {"uid": UIDS[0], "reason": "missing_value"},
    ]


def test_how_far_a_unit_is_is_told_where_its_rows_are_counted(tmp_path):
    in_flight, told = InFlight(tmp_path / "a.in_flight"), []

    def begun(pairs, values):
        told.append(read_part(in_flight.path).done)
        return lambda: {uid: {"uid": uid} for uid, _ in pairs}

    WorkerLoop("unit", in_flight, 3, bytes.upper, planned=7).run(iter(PAIRS), {}, begun)
    assert told == [0, 3, 6]
    assert read_part(in_flight.path) == Part("unit", 7, 7)
