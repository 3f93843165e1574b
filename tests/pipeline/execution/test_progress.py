"""pipeline/execution/progress.py: rates and time left are of this invocation; a terminal has one line, a file many."""

import sys
import time

import pytest

from manifests.journal import ShardRecord
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


def test_nothing_to_do_takes_no_time(now):
    assert (
        Progress("fetch", units=3, skipped=3, started=1000.0)
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
    quiet = ShownWatch(quiet=True)
    now[0] += 10
    quiet.show(last=True)
    assert capsys.readouterr().err == ""


def test_a_verification_that_has_read_nothing_knows_no_time_left(now, capsys):
    watch = ShownWatch()
    watch.show(last=True)
    assert "0.00/0.00 GB  0.00 GB/s  ETA ?" in capsys.readouterr().err
