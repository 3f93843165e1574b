"""pipeline/execution/progress.py: rates and time left are of this invocation; a terminal has one line, a file many."""

import os
import sys
import time

import pytest

from manifests.journal import ShardRecord
from pipeline.execution.in_flight import Part
from pipeline.execution.progress import Progress, ShownWatch, clock


@pytest.fixture
def now(monkeypatch):
    """A clock that stands at 1000 s until it is set."""
    at = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    return at


def record(rows, kept):
    return ShardRecord("0", "key", (), rows, kept, {"size": rows - kept})


def test_clock():
    assert [clock(s) for s in (0, 5, 59.9, 65, 3661, 90_000)] == ["0:00", "0:05", "0:59", "1:05", "1:01:01", "25:00:00"]


def test_time_left_is_reckoned_from_the_units_of_this_invocation(now):
    progress = Progress("score", units=10, skipped=4, started=1000.0)
    assert progress.line() == "  score    4/10 shards (4 were done)  0 rows/s  ETA ?  kept 0  0:00"
    progress.add(record(3000, 2000))
    progress.add(record(1000, 1000))
    now[0] += 20
    # 4000 rows in 20 s; 2 of 6 units took 20 s, 4 are left: 40 s
    assert progress.line() == "  score    6/10 shards (4 were done)  200 rows/s  ETA 0:40  kept 3,000  0:20"


def test_a_shard_that_is_begun_moves_the_line_and_its_slowest_hosts_are_named(now):
    """Two workers: one has answered 300 URLs of 400 in its first shard, one 50 of 100 in its second, after 100."""
    progress = Progress("fetch", noun="URLs", units=4, started=1000.0)
    now[0] += 10
    progress.parts = [
        Part("00000", 300, 400, (("dead.example", 90, 65.0), ("a.example", 1, 1.0))),
        Part("00002", 50, 100, (("dead.example", 10, 70.0), ("b.example", 30, 9.0), ("c.example", 1, 0.5)), 100),
    ]
    # 450 URLs in 10 s; 0.75 + 0.5 of 4 shards took 10 s, 2.75 are left: 22 s
    assert progress.line() == (
        "  fetch    0/4 shards  450 URLs  45 URLs/s  ETA 0:22  kept 0  0:10"
        "  waits for dead.example (100 URLs left, 1:10), b.example (30 URLs left, 0:09), a.example (1 URLs left, 0:01)"
    )
    progress.add(ShardRecord("00000", "key", (), 400, 210, {"timeout": 190}))
    # the first is done: 1.5 of 4 took 10 s, 2.5 are left: 16 s
    assert progress.line() == (
        "  fetch    1/4 shards  450 URLs  45 URLs/s  ETA 0:16  kept 210  0:10"
        "  waits for dead.example (10 URLs left, 1:10), b.example (30 URLs left, 0:09), c.example (1 URLs left, 0:00)"
    )
    progress.parts = [Part("00001", 0, 0), Part("00002", 100, 100, (), 100)]
    assert progress.line().startswith("  fetch    1/4 shards  200 URLs  20 URLs/s  ETA 0:10  kept 210")


def test_nothing_to_do_takes_no_time(now):
    assert (
        Progress("fetch", noun="URLs", units=3, skipped=3, started=1000.0)
        .line()
        .endswith("3/3 shards (3 were done)  0 rows/s  ETA 0:00  kept 0  0:00")
    )


def test_a_file_gets_a_line_every_five_seconds_and_the_last(now, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    progress = Progress("score", units=2, started=1000.0)
    for seconds in (0, 1, 4.9, 5, 6):
        now[0] = 1000.0 + seconds
        progress.show()
    progress.show(last=True)
    lines = capsys.readouterr().err.split("\n")
    assert [line.rpartition("  ")[2] for line in lines] == ["0:00", "0:05", "0:06", ""]
    assert "\r" not in "".join(lines)


def test_a_terminal_has_one_line_written_over(now, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress("score", units=2, started=1000.0)
    progress.show()
    now[0] += 0.1
    progress.show()  # too early
    now[0] += 0.2
    progress.show()
    progress.show(last=True)
    out = capsys.readouterr().err
    assert out.count("\r\x1b[K  score") == 3
    assert out.count("\n") == 1
    assert out.endswith("\n")


def test_a_verification_shows_bytes_rate_and_time_left(now, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    watch = ShownWatch()
    watch.total = 3_000_000_000
    watch.add(1_000_000_000, files=1234)
    watch.show()  # 0 s since the start
    now[0] += 10
    watch.show()
    # 1 GB in 10 s: 2 GB are left, 20 s
    assert capsys.readouterr().err == "  verify   1.00/3.00 GB  0.10 GB/s  ETA 0:20  1,234 files\n"
    now[0] += 10
    watch.add(4_000_000_000)  # a file has grown since it was counted
    watch.show()
    assert "ETA 0:00" in capsys.readouterr().err
    quiet = ShownWatch(quiet=True)
    now[0] += 10
    quiet.show(last=True)
    assert capsys.readouterr().err == ""


def test_a_verification_that_has_read_nothing_knows_no_time_left(now, capsys):
    watch = ShownWatch()
    watch.show(last=True)
    assert "0.00/0.00 GB  0.00 GB/s  ETA ?" in capsys.readouterr().err


def test_a_line_of_a_terminal_is_as_wide_as_the_terminal(now, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2)
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((31, 9)))
    progress = Progress(
        "fetch", noun="URLs", units=1, started=1000.0, parts=[Part("0", 1, 2, (("a.example", 1, 9.0),))]
    )
    progress.show(last=True)
    assert capsys.readouterr().err == "\r\x1b[K  fetch    0/1 shards  1 URLs \n"


def test_rows_of_a_unit_go_by_the_steps_own_name(now):
    progress = Progress("caption", units=2, started=990.0, noun="captions", parts=[Part("0", 30, 40, before=20)])
    assert progress.line() == "  caption  0/2 shards  50 captions  5 captions/s  ETA 0:16  kept 0  0:10"
