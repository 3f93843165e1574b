"""The ledger of attempts: a row for each, a digest of the last ones alone, and what an earlier plan had settled."""

import pytest

from filters.images.decode import Stored
from manifests.journal import FileRecord, ShardRecord
from manifests.shards import write_shard
from pipeline.execution.reuse import adopt, set_aside
from pipeline.execution.step import Unit
from pipeline.steps.fetch.attempts import attempts_table, carried, counted_again, history, refusals, write_ledger
from pipeline.steps.fetch.limits import SAME, Terms
from pipeline.steps.fetch.pairs import METADATA, Attempt, Result, Spool, samples
from tests.support.records import uid

UNIT = Unit("00000", {"made_by": "x"}, "", "key")
SIZE = Stored(b"", 3, 4, 30, 40)
ROWS = [{"uid": uid(n), "url": f"http://x.test/{n}", "text": "two words", **dict.fromkeys(METADATA)} for n in range(4)]


@pytest.fixture
def spool(tmp_path):
    with open(tmp_path / "spool", "w+b") as file:
        yield Spool(file)


@pytest.fixture
def results(spool):
    """Return what became of ROWS: fetched, fetched at the second attempt, gone, killed its worker."""
    return {
        uid(0): Result((Attempt(200),), SIZE, *spool.put(b"zero")),
        uid(1): Result((Attempt(503, "http_503"), Attempt(200)), SIZE, *spool.put(b"one")),
        uid(2): Result((Attempt(404, "http_404"),)),
        uid(3): Result((Attempt(reason="worker_died"),)),
    }


@pytest.fixture
def earlier(tmp_path, results, spool):
    """Return a run folder in which a plan of the four rows was done and set aside."""
    write_shard(tmp_path / "pairs" / "00000.tar", samples([dict(row) for row in ROWS], results, spool))
    ledger = write_ledger(tmp_path, UNIT, ROWS, results)
    files = (FileRecord.of(tmp_path, tmp_path / "pairs" / "00000.tar"), ledger)
    set_aside(tmp_path, "fetch", [ShardRecord("00000", "key", files, 4, 4)])
    return tmp_path


def test_attempts_stand_in_the_planned_order_and_the_last_one_counts(results):
    receipt = Result((Attempt(None, "robots", "Disallow", "/private"),))
    table = attempts_table([ROWS[1], ROWS[0]], {**results, uid(0): receipt})
    columns = ("uid", "attempt", "last", "http_status", "reason", "rule", "value")
    assert [tuple(row[name] for name in columns) for row in table.to_pylist()] == [
        (uid(1), 1, False, 503, "http_503", None, None),
        (uid(1), 2, True, 200, None, None, None),
        (uid(0), 1, True, None, "robots", "Disallow", "/private"),
    ]
    assert attempts_table([], {}).num_rows == 0


def test_the_digest_does_not_depend_on_how_often_a_row_was_asked_for(tmp_path, results):
    first = write_ledger(tmp_path, UNIT, ROWS, results)
    at_once = write_ledger(tmp_path, UNIT, ROWS, {**results, uid(1): Result((Attempt(200),))})
    other = write_ledger(tmp_path, UNIT, ROWS, {**results, uid(2): Result((Attempt(410, "http_410"),))})
    assert first.sha256 != at_once.sha256
    assert first.counted == at_once.counted != other.counted
    assert first.path == "ledger/fetch/00000.parquet"


def test_the_digest_does_not_depend_on_whether_a_status_came_before_time_was_up(tmp_path, results):
    records = [
        write_ledger(tmp_path, UNIT, ROWS, {**results, uid(1): Result((Attempt(status, reason),))})
        for status, reason in ((None, "timeout"), (200, "timeout"), (None, "tls"), (200, "tls"))
    ]
    assert records[0].sha256 != records[1].sha256
    assert len({record.counted for record in records}) == 3
    assert [counted_again(tmp_path, record).counted for record in records[3:]] == [records[3].counted]


def test_the_past_of_the_rows_that_are_asked_about(earlier):
    past = history(earlier, {"x": SAME}, [uid(1), uid(2), uid(9)])
    assert {key: known.attempts for key, known in past.items()} == {
        uid(1): (Attempt(503, "http_503"), Attempt(200)),
        uid(2): (Attempt(404, "http_404"),),
    }
    assert history(earlier, {"other settings": SAME}, [uid(1)]) == history(earlier, {"x": SAME}, []) == {}


def test_settled_rows_are_carried_over_with_their_pictures(earlier, spool):
    past = history(earlier, {"x": SAME}, [row["uid"] for row in ROWS])
    results = carried(past, (), spool)
    assert sorted(results) == [uid(0), uid(1), uid(2)]  # a row whose worker died is asked again
    assert [spool.get(results[uid(n)].start, results[uid(n)].length) for n in (0, 1)] == [b"zero", b"one"]
    assert results[uid(1)].stored == SIZE
    assert (results[uid(2)].stored, results[uid(2)].last.reason) == (None, "http_404")


def test_reasons_that_are_asked_again_are_not_carried_over(earlier, spool):
    past = history(earlier, {"x": SAME}, [row["uid"] for row in ROWS])
    assert sorted(carried(past, ("http_404",), spool)) == sorted(carried(past, ("http_4xx",), spool))
    assert sorted(carried(past, ("http_4xx",), spool)) == [uid(0), uid(1)]
    assert sorted(carried(past, ("http_5xx",), spool)) == [uid(0), uid(1), uid(2)]  # 503 was not the last word


def test_of_a_shard_whose_tar_is_lost_the_failures_are_carried_and_it_is_said(tmp_path, results, spool):
    ledger = write_ledger(tmp_path, UNIT, ROWS, results)
    record = ShardRecord("00000", "key", (FileRecord("pairs/00000.tar", "ab", 10), ledger), 4, 4)
    assert set_aside(tmp_path, "fetch", [record]) == [
        "warning: fetch: pairs/00000.tar is missing or damaged: what it held is not set aside"
    ]
    assert sorted(carried(history(tmp_path, {"x": SAME}, [row["uid"] for row in ROWS]), (), spool)) == [uid(2)]


def test_a_picture_that_is_not_there_any_more_is_asked_for(earlier, spool):
    past = history(earlier, {"x": SAME}, [row["uid"] for row in ROWS])
    next((earlier / ".earlier" / "fetch").glob("*.tar")).unlink()
    assert sorted(carried(past, (), spool)) == [uid(2)]


@pytest.mark.parametrize("place", ["0", "~"])
def test_of_two_pasts_the_longer_one_counts_wherever_it_lies(earlier, results, place):
    asked_again = Result((*results[uid(2)].attempts, Attempt(None, "dns")))
    ledger = write_ledger(earlier, UNIT, ROWS[2:3], {uid(2): asked_again})
    (earlier / ledger.path).rename(earlier / ".earlier" / "fetch" / f"{place}-ledger.parquet")  # before and behind
    adopt(earlier, "fetch")
    assert history(earlier, {"x": SAME}, [uid(2)])[uid(2)].attempts == (Attempt(404, "http_404"), Attempt(None, "dns"))


def test_refusals_are_counted_by_where_they_stood_and_only_the_last_attempts(tmp_path, results):
    said = Attempt(200, "opted_out", "XMP plus:DataMining", "DMI-PROHIBITED")
    signal = Attempt(None, "opted_out", "robots.txt Content-Signal", "Content-Signal: ai-train=no")
    refused = {
        **results,
        uid(0): Result((signal, said)),
        uid(2): Result((said,)),
        uid(3): Result((Attempt(None, "robots", "robots.txt", "Disallow: /"),)),
    }
    write_ledger(tmp_path, UNIT, ROWS, refused)
    write_ledger(tmp_path, Unit("00001", {"made_by": "x"}, "", "key"), ROWS, results)
    ledgers = sorted((tmp_path / "ledger" / "fetch").iterdir())
    assert len(ledgers) == 2
    assert refusals(tmp_path, ledgers) == {"XMP plus:DataMining": 2, "robots.txt": 1}
    assert refusals(tmp_path, ledgers[1:]) == refusals(tmp_path, []) == {}


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")], ids="".join)
def test_a_row_that_one_limit_of_before_would_ask_again_is_taken_from_where_another_lets_it_stand(
    earlier, results, spool, order
):
    write_shard(earlier / "pairs" / "00001.tar", samples([dict(row) for row in ROWS], results, spool))
    ledger = write_ledger(earlier, Unit("00001", {"made_by": "y"}, "", "key"), ROWS, results)
    files = (FileRecord.of(earlier, earlier / "pairs" / "00001.tar"), ledger)
    set_aside(earlier, "fetch", [ShardRecord("00001", "key", files, 4, 4)])
    narrower = Terms(frozenset({"http_404"}), max_bytes=9)  # how many bytes came is not known of these pictures
    held = {"x": narrower, "y": SAME}
    past = history(earlier, {key: held[key] for key in order}, [row["uid"] for row in ROWS])
    assert sorted(carried(past, (), spool)) == [uid(0), uid(1), uid(2)]
    assert sorted(carried(past, ("http_404",), spool)) == [uid(0), uid(1)]  # the user's word: no older answer is taken
    past = history(earlier, dict.fromkeys(order, narrower), [row["uid"] for row in ROWS])
    assert carried(past, (), spool) == {}
