"""Pictures decoded beside a worker are those that it would decode itself, and a decoder's death costs nothing."""

import os
import signal
from functools import partial

import pytest

from pipeline.execution.decode_pool import Decoders
from pipeline.steps.kept_pairs import opened, opened_rows
from tests.support.small_web import jpeg, picture

WORK = partial(opened, max_pixels=10_000)

JPEGS = [(bytes([n]) * 16, jpeg(picture(n, 40 + n, 50))) for n in range(5)] + [
    (b"x" * 16, b"no picture"),
    (b"y" * 16, jpeg(picture(9))[:200]),
]


def outcome(decoders):
    rows, pictures = opened_rows(JPEGS, decoders.begin([data for _, data in JPEGS], WORK)())
    return [(uid, pixels.tobytes()) for uid, pixels in pictures], {uid: row["reason"] for uid, row in rows.items()}


@pytest.fixture(scope="module")
def beside():
    decoders = Decoders(2)
    yield decoders
    decoders.close()


def test_decoders_change_no_byte(beside):
    images, reasons = outcome(Decoders(0))
    assert outcome(beside) == (images, reasons)
    assert len(images) == 5
    assert [reasons[uid] for uid, _ in JPEGS[5:]] == ["not_an_image", "truncated"]


def test_a_dead_decoder_leaves_the_work_to_the_worker(beside):
    wanted = outcome(beside)
    os.kill(next(iter(beside._pool._processes)), signal.SIGKILL)
    assert outcome(beside) == wanted
    assert outcome(beside) == wanted  # by a pool that was started anew


def test_the_next_batch_is_decoded_before_this_one_is_done():
    begun = []

    class Noting(Decoders):
        def begin(self, jpegs, work):
            begun.append(len(jpegs))
            return super().begin(jpegs, work)

    seen = [
        (list(begun), [uid for uid, _ in batch])
        for batch, _ in Noting(0).ahead([JPEGS[:2], JPEGS[2:3], JPEGS[3:]], WORK)
    ]
    assert [counts for counts, _ in seen] == [[2, 1], [2, 1, 4], [2, 1, 4]]
    assert [uid for _, uids in seen for uid in uids] == [uid for uid, _ in JPEGS]


def test_a_broken_pool_does_not_take_the_next_one_along(beside):
    jpegs = [data for _, data in JPEGS]
    beside.close()  # another test may have killed one of its processes just now
    whole = beside.begin(jpegs, WORK)()
    os.kill(next(iter(beside._pool._processes)), signal.SIGKILL)
    waits = [beside.begin(jpegs, WORK) for _ in range(3)]
    for wait in waits:
        assert [str(found) for found in wait()] == [str(found) for found in whole]
