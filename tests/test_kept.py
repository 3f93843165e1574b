"""Pictures decoded beside a worker are those that it would decode itself, and a decoder's death costs nothing."""

import os
import signal

import numpy as np
import pytest
from conftest import jpeg, picture

from pipeline.kept import Decoders, decode

JPEGS = [(bytes([n]) * 16, jpeg(picture(n, 40 + n, 50))) for n in range(5)] + [
    (b"x" * 16, b"no picture"),
    (b"y" * 16, jpeg(picture(9))[:200]),
]


def outcome(decoders):
    rows = {}
    images = decode(JPEGS, rows, 10_000, decoders)
    return [(uid, np.asarray(image).tobytes()) for uid, image in images], {uid: row["reason"] for uid, row in rows.items()}


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
