"""pipeline/steps/asking.py: questions go over the ends of units, and answers come to where they belong."""

import pyarrow.parquet as pq
import pytest

from captioning.captioner import Answer, CaptionerError
from manifests.shards import ShardError
from pipeline.execution.in_flight import InFlight, read_in_flight, read_part
from pipeline.execution.partial import Partial
from pipeline.execution.reuse import set_aside
from pipeline.steps.asking import answered, made_from
from pipeline.steps.caption import CaptionWorker
from tests.support.captions import Refilling, Words, captioned_run, number_of
from tests.support.records import uid


@pytest.fixture
def step(tmp_path):
    return captioned_run(tmp_path, rows=5)


def streamed(step, words, in_flight=None, units=None):
    """Return the records of units that were captioned as one stream."""
    worker = CaptionWorker(step, {"llava": words})
    return list(worker.stream(iter(units or step.units()), in_flight or InFlight()))


def texts(step, record):
    return pq.read_table(step.root / record.files[0].path)["text"].to_pylist()


def tables(step):
    return {path.name: path.read_bytes() for path in (step.root / "captions/attempts").glob("*.parquet")}


def test_batches_go_over_the_ends_of_units(step):
    words = Words(4)
    records = streamed(step, words)
    assert [len(batch) for batch in words.asked] == [4] * 7 + [2]
    assert words.asked[1] == [4, 5, 6, 7]
    assert [record.shard for record in records] == [f"llava-{n:05d}" for n in range(6)]
    assert [record.rows_out for record in records] == [5] * 6
    assert texts(step, records[1])[0].startswith("It is 45 wide. Describe")


@pytest.mark.parametrize("words", [Words(1), Words(7), Refilling(4)])
def test_the_order_of_answers_changes_no_byte(step, words):
    streamed(step, Words(2))
    before = tables(step)
    assert len(before) == 6
    streamed(step, words)
    assert tables(step) == before


def test_units_are_drawn_as_there_is_room(step):
    drawn, units = [], step.units()
    records = CaptionWorker(step, {"llava": Words(2)}).stream(iter(drawn.append(u) or u for u in units), InFlight())
    assert next(records).shard == "llava-00000"
    assert len(drawn) == 2  # its last picture shared a batch with the next one's first


def test_rows_with_which_a_worker_died_come_after_the_others_and_alone_after_another_death(step):
    words = Words(4)
    deaths = {uid(1): 1, uid(7): 2, uid(8): 3, uid(9): 1, uid(29): 2}
    records = streamed(step, words, InFlight(crash_counts={one.hex(): count for one, count in deaths.items()}))
    assert words.asked[-3:] == [[1, 9], [7], [29]]
    assert [record.dropped for record in records if record.dropped] == [{"worker_died": 1}]
    assert sum(record.rows_out for record in records) == 29


def test_what_is_drawn_and_not_answered_is_in_hand(step, tmp_path):
    in_flight, seen = InFlight(tmp_path / "a.in_flight"), []

    class Looking(Refilling):
        def _batch(self, asks):
            unit, uids = read_in_flight(in_flight.path)
            seen.append((unit, sorted(number_of(bytes.fromhex(uid)) for uid in uids)))
            return super()._batch(asks)

    streamed(step, Looking(3), in_flight)
    assert seen[0] == ("llava-00000", [0, 1, 2])
    assert seen[1] == ("llava-00000", [0, 1, 3])
    assert seen[6] == ("llava-00000", [0, 1, 8])  # the first two are answered last
    assert read_in_flight(in_flight.path) == ("", [])


def test_how_many_captions_there_are_is_told_at_the_end_of_each_unit_at_least(step, tmp_path):
    in_flight = InFlight(tmp_path / "a.in_flight")
    streamed(step, Words(2), in_flight)
    part = read_part(in_flight.path)
    assert (part.unit, part.done, part.total, part.before) == ("llava-00005", 5, 5, 25)
    assert in_flight.told() == 30


def journal_all(step, records):
    for record in records:
        step.journal.record(record)


def killed_after(step, count, words):
    """Let a captioner be killed as it has given so many answers; return the uids of those."""

    class Killed(type(words)):
        def _batch(self, asks):
            if sum(map(len, self.asked)) >= count:
                raise KeyboardInterrupt
            return super()._batch(asks)

    worker = CaptionWorker(step, {"llava": (killed := Killed(words.size))})
    with pytest.raises(KeyboardInterrupt):
        journal_all(step, worker.stream(iter(step.units()), InFlight()))
    return {n for batch in killed.asked for n in batch}


@pytest.mark.parametrize(("kind", "size"), [(Words, 1), (Words, 3), (Refilling, 3)])
def test_answers_that_came_are_not_asked_for_again(step, kind, size):
    had = killed_after(step, 12, kind(size))
    left = [unit for unit in step.units() if step.journal.get(unit.name) is None]
    words = kind(size)
    streamed(step, words, units=left)
    assert not had & {n for batch in words.asked for n in batch}
    after = tables(step)
    assert not list((step.root / ".partial/caption").iterdir())
    streamed(step, kind(size))
    assert tables(step) == after


def test_kept_answers_of_another_question_are_not_taken(step):
    killed_after(step, 2, Words(2))
    other = Partial(step.root, "caption", "llava-00000", step.made_by("llava"))
    assert len(list(other.rows([uid(0), uid(1)]))) == 2
    plan = step.root / "manifests/plan/caption/llava-00000.parquet"
    table = pq.read_table(plan)
    pq.write_table(table.set_column(1, "prompt", [["one_sentence_v1"] * 5]), plan)
    words = Words(5)
    streamed(step, words, units=step.units()[:1])
    assert words.asked == [[0, 1, 2, 3, 4]]


def test_a_row_says_what_its_words_depend_on():
    question = {"prompt": "p_v1", "prompt_sha256": b"p" * 32, "seed": 3}
    row = answered(Words(), question, b"i" * 32, Answer(uid(1), reason="not_an_image"))
    assert row["made_from"] == made_from(b"i" * 32, b"p" * 32, 3)
    assert len({row["made_from"], made_from(b"i" * 32, b"p" * 32, 4), made_from(b"p" * 32, b"i" * 32, 3)}) == 3
    assert (row["text"], row["reason"], row["seed"]) == (None, "not_an_image", 3)


class Broken(Words):
    def _batch(self, asks):
        if 12 in [number_of(ask.uid) for ask in asks]:
            raise RuntimeError("a tensor of the wrong shape")
        return super()._batch(asks)


def test_whatever_a_captioner_raises_is_one_sentence_and_what_came_stays(step):
    with pytest.raises(CaptionerError, match=r"^caption\.llava: RuntimeError: a tensor of the wrong shape$"):
        streamed(step, Broken(2))
    kept = Partial(step.root, "caption", "llava-00002", step.made_by("llava"))
    assert [row["uid"] for row in kept.rows(map(uid, range(30)))] == [uid(10), uid(11)]


@pytest.mark.parametrize("leaving", [SystemExit(0), GeneratorExit()])
def test_a_captioner_that_ends_its_process_from_python_is_one_sentence_too(step, leaving):
    class Leaving(Words):
        def _batch(self, asks):
            raise leaving

    with pytest.raises(CaptionerError, match=rf"^caption\.llava: {type(leaving).__name__}"):
        streamed(step, Leaving(2))


def test_a_captioner_that_leaves_questions_unanswered_or_answers_others_is_refused(step):
    class Silent(Words):
        def _answer(self, ask):
            return super()._answer(ask)

        def _batch(self, asks):
            return super()._batch(asks)[:-1]

    class Strange(Words):
        def _answer(self, ask):
            return Answer(bytes(16)[:-1] + b"\xff", "words")

    with pytest.raises(CaptionerError, match=r"caption\.llava: 15 questions were never answered"):
        streamed(step, Silent(2))
    with pytest.raises(CaptionerError, match=r"caption\.llava: answered what nobody asked: 0+ff"):
        streamed(step, Strange(2))


def test_a_damaged_shard_is_not_the_captioners_fault(step):
    tar = step.root / "pairs/00001.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises((ShardError, OSError)):
        streamed(step, Words(2))


def test_units_without_a_question_are_written_as_they_come(step):
    """No answer makes room for them: the captioner's turn ends, and begins again."""
    first = streamed(step, Words(2))
    set_aside(step.root, "caption", [record for record in first if record.shard != "llava-00003"])
    words, drawn = Words(4), []
    units = step.units()
    worker = CaptionWorker(step, {"llava": words})
    behind = []
    for done, _ in enumerate(worker.stream(iter(drawn.append(u) or u for u in units), InFlight())):
        behind.append(len(drawn) - done)
    assert max(behind) <= 3  # the one with questions is written when they are answered
    assert words.asked == [[15, 16, 17, 18], [19]]


def test_a_fault_that_may_pass_is_not_kept(step, monkeypatch):
    monkeypatch.setattr("pipeline.steps.asking.ASKED_AGAIN", ("worker_died", "endpoint_down"))

    class Failing(Words):
        def _answer(self, ask):
            return Answer(ask.uid, reason="endpoint_down")

    killed = type("Killed", (Failing,), {"_batch": interrupted})(2)
    with pytest.raises(KeyboardInterrupt):
        streamed(step, killed)
    assert list(Partial(step.root, "caption", "llava-00000", step.made_by("llava")).rows([uid(0), uid(1)])) == []


def interrupted(self, asks):
    if self.asked:
        raise KeyboardInterrupt
    return Words._batch(self, asks)
