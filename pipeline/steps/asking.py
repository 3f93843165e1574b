"""Ask a captioner about pictures over the ends of units, and make each unit's rows of the answers, in whatever order.

The captioner draws questions as it has room. What was drawn and not answered is in hand; rows with which a worker died
are asked after the others, together, since as a rule nobody of them was to blame, and those with which another one died
alone; what no worker survived gets `worker_died`. Answers are kept in the run as they
come (pipeline/execution/partial.py), a batch of them at a time, so that the next attempt asks for the others alone.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from captioning.captioner import Answer, Ask, Captioner, CaptionerError
from manifests.guard import Guard
from manifests.journal import ShardRecord
from manifests.publishing import RunOver
from manifests.reasons import ASKED_AGAIN
from manifests.tables import ATTEMPTED
from manifests.weights import WeightsError
from pipeline.execution.decode_pool import Pair
from pipeline.execution.in_flight import InFlight, Part
from pipeline.execution.partial import Partial
from pipeline.execution.step import Unit
from pipeline.steps.kept_pairs import Row
from pipeline.steps.worker_loop import Rows

KEPT_S = 30.0
"""Seconds after which answers are kept, be they ever so few."""
SHARE = 20
"""Where a captioner rests between its batches, keeping answers takes at most one part in so many of the time."""
TOLD_S = 0.5
"""Seconds between two words on how far a unit is."""
MOST_ENDED = 4
"""Units that have ended and are not written yet."""
PASSING = (CaptionerError, WeightsError, RunOver, OSError, MemoryError)
"""What a captioner may raise that is told as it is; whatever else comes would come again."""


@dataclass
class Questions:
    """What is asked about one unit's pictures, and what came of it.

    `planned`: uid -> planned row with its filled prompt and the sha256 of that; `pairs`: (uid, JPEG) of them;
    `earlier`: (uid, made_from) -> row that need not be asked for.
    """

    unit: Unit
    planned: Rows
    pairs: Iterable[Pair]
    earlier: dict[tuple[bytes, bytes], Row]
    partial: Partial
    rows: Rows = field(default_factory=dict)
    later: dict[bytes, bytes] = field(default_factory=dict)
    """uid -> JPEG of those that are asked after all others."""
    waiting: int = 0
    """Questions that the captioner has and has not answered."""
    drawn: bool = False
    """Whether all pairs have been looked at."""
    fresh: list[Row] = field(default_factory=list)
    """Answers that are not kept yet."""
    answered: int = 0

    @property
    def ended(self) -> bool:
        """Tell whether there is nothing left to ask or to wait for."""
        return self.drawn and not self.waiting and not self.later

    def keep(self) -> None:
        """Keep the answers that came since the last time."""
        if self.fresh:
            self.partial.add(pa.Table.from_pylist(self.fresh, schema=ATTEMPTED))
        self.fresh = []


class Asking:
    """One captioner's way through units. `opened` makes a unit's questions, `written` writes what came of them and
    returns its record; `size`: answers that are kept together."""

    def __init__(
        self,
        captioner: Captioner,
        in_flight: InFlight,
        size: int,
        opened: Callable[[Unit], Questions],
        written: Callable[[Questions], ShardRecord],
    ) -> None:
        self.captioner, self.in_flight, self.size = captioner, in_flight, size
        self.opened, self.written = opened, written
        self._open: dict[str, Questions] = {}
        self._ended: deque[Questions] = deque()
        self._asked: dict[bytes, tuple[Questions, bytes]] = {}
        """uid -> where it is from, and the sha256 of its picture."""
        self._fault: Exception | None = None
        self._over = False
        self._answered = in_flight.told()
        self._told_at = 0.0
        self._kept_at, self._keeping = time.monotonic(), 0.0
        """When answers were kept last, and the seconds that it took."""

    def stream(self, units: Iterator[Unit]) -> Iterator[ShardRecord]:
        """Yield the record of each unit as it is done. Raises CaptionerError for whatever a captioner raises."""
        drawn = self._drawn(units)
        try:
            while not self._over:
                yield from self._round(self._asks(drawn))
            for some in self._later():
                yield from self._round(self._ask(one, uid, one.later.pop(uid)) for one, uid in some)
        finally:
            self._keep_all()

    def _later(self) -> list[list[tuple[Questions, bytes]]]:
        """Return what is asked after all others: in one round what a worker died with once, then each of the rest."""
        every = [(one, uid) for one in self._open.values() for uid in one.later]
        once = [pair for pair in every if self.in_flight.deaths(pair[1]) == 1]
        return [*([once] if once else []), *([pair] for pair in every if self.in_flight.deaths(pair[1]) > 1)]

    def _round(self, asks: Iterator[Ask]) -> Iterator[ShardRecord]:
        answers = iter(self.captioner.answers(asks))
        while (answer := self._next(answers)) is not None:
            self._take(answer)
            yield from self._records()
        if self._fault is not None:
            raise self._fault
        if self._asked:
            raise CaptionerError(f"caption.{self.captioner.name}: {len(self._asked)} questions were never answered")
        self.in_flight.hold("", ())
        yield from self._records()

    def _next(self, answers: Iterator[Answer]) -> Answer | None:
        try:
            with Guard(PASSING) as guard:
                return next(answers, None)
            error: BaseException | None = guard.error
        except (SystemExit, GeneratorExit) as leaving:  # a worker is told to end by signals alone
            error = leaving
        raise CaptionerError(f"caption.{self.captioner.name}: {type(error).__name__}: {error}") from error

    def _records(self) -> Iterator[ShardRecord]:
        """Write the units that have ended; their answers go once their records stand."""
        while self._ended:
            one = self._ended.popleft()
            yield self.written(one)
            one.partial.drop()

    def _asks(self, drawn: Iterator[Ask | None]) -> Iterator[Ask]:
        """Yield questions until there are none, or units have ended that nobody writes as long as no answer comes."""
        with Guard() as guard:  # what a shard lacks is not the captioner's fault
            for ask in drawn:
                if ask is not None:
                    yield ask
                elif self._ended and (not self._asked or len(self._ended) >= MOST_ENDED):
                    return
            self._over = True
        if guard.error is not None:
            self._fault, self._over = guard.error, True

    def _drawn(self, units: Iterator[Unit]) -> Iterator[Ask | None]:
        """Yield a question for each picture that there is no row of; None at the end of a unit."""
        for unit in units:
            one = self._open[unit.name] = self.opened(unit)
            self._hold()
            for uid, jpeg in one.pairs:
                sha256 = hashlib.sha256(jpeg).digest()
                if (before := one.earlier.get((uid, _made_from(one, uid, sha256)))) is not None:
                    one.rows[uid] = before
                elif self.in_flight.is_poisoned(uid):
                    continue
                elif self.in_flight.alone(uid):
                    one.later[uid] = jpeg
                else:
                    yield self._ask(one, uid, jpeg, sha256)
            one.drawn = True
            self._look(one)
            yield None

    def _ask(self, one: Questions, uid: bytes, jpeg: bytes, sha256: bytes = b"") -> Ask:
        self._asked[uid] = one, sha256 or hashlib.sha256(jpeg).digest()
        one.waiting += 1
        self._hold()
        return Ask(uid, jpeg, one.planned[uid]["filled"], one.planned[uid]["seed"])

    def _take(self, answer: Answer) -> None:
        if answer.uid not in self._asked:
            raise CaptionerError(f"caption.{self.captioner.name}: answered what nobody asked: {answer.uid.hex()}")
        one, sha256 = self._asked.pop(answer.uid)
        row = one.rows[answer.uid] = answered(self.captioner, one.planned[answer.uid], sha256, answer)
        one.waiting, one.answered, self._answered = one.waiting - 1, one.answered + 1, self._answered + 1
        if answer.reason not in ASKED_AGAIN:
            one.fresh.append(row)
        self._tell()
        self._look(one)
        self._hold()
        self._keep()

    def _keep(self) -> None:
        """Keep answers where a batch of them has come, or the captioner has nothing in hand and it costs little."""
        fresh, began = sum(len(one.fresh) for one in self._open.values()), time.monotonic()
        rests = not self._asked and began - self._kept_at > SHARE * self._keeping
        if fresh and (fresh >= self.size or rests or began - self._kept_at > KEPT_S):
            for one in self._open.values():
                one.keep()
            self._kept_at = time.monotonic()
            self._keeping = self._kept_at - began

    def _look(self, one: Questions) -> None:
        if one.ended:
            self._tell(now=True)
            self._ended.append(self._open.pop(one.unit.name))

    def _hold(self) -> None:
        """Note what is in hand, under the unit that has been open for longest."""
        self.in_flight.hold(next(iter(self._open), ""), list(self._asked))

    def _tell(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._told_at < TOLD_S:
            return
        self._told_at = time.monotonic()
        one = next(iter(self._open.values()))
        asked = len(one.planned) - len(one.rows) + one.answered
        part = Part(one.unit.name, one.answered, asked)
        self.in_flight.tell(part, before=self._answered - one.answered)

    def _keep_all(self) -> None:
        for one in self._open.values():
            with suppress(OSError, RunOver):
                one.keep()


def _made_from(one: Questions, uid: bytes, sha256: bytes) -> bytes:
    return made_from(sha256, one.planned[uid]["prompt_sha256"], one.planned[uid]["seed"])


def answered(captioner: Captioner, question: Row, sha256: bytes, answer: Answer) -> Row:
    """Return the row of one answer to a question about the picture of this sha256."""
    made: dict[str, Any] = {
        "uid": answer.uid,
        "sha256": sha256,
        "made_from": made_from(sha256, question["prompt_sha256"], question["seed"]),
        "captioner": captioner.name,
        "model": captioner.model,
        "revision": captioner.revision,
        **{name: question[name] for name in ("prompt", "prompt_sha256", "seed")},
        "text": None if answer.reason else answer.text,
        "tokens": answer.tokens,
        "prompt_tokens": answer.prompt_tokens,
        "at_limit": answer.at_limit,
        "reason": answer.reason,
    }
    return made


def made_from(picture_sha256: bytes, prompt_sha256: bytes, seed: int) -> bytes:
    """Return the digest of everything but the captioner that an answer depends on."""
    return hashlib.sha256(picture_sha256 + prompt_sha256 + seed.to_bytes(8, "big")).digest()
