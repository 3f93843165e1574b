"""Fetch one shard: every row asked for, carried over or refused, its picture spooled, its outputs written in the
planned order."""

import contextlib
import datetime
import hashlib
import json
import socket
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filters.digest_lists import DigestLists, Hit
from filters.fetch.client import fetch_all
from filters.fetch.config import FetchConfig
from filters.fetch.digests import Digests
from filters.fetch.embedded import embedded_refusal
from filters.fetch.img2dataset import download
from filters.fetch.messages import Answer, Download, Request
from filters.fetch.optout import Receipt
from filters.fetch.url import identity
from filters.images.decode import ImageFault, ImageLimits, Stored, inspect, store
from filters.images.pdq import pdq_of, pdq_of_jpeg
from manifests.files import read_table, write_json, write_table
from manifests.journal import FileRecord, ShardRecord
from manifests.publishing import RunOver
from manifests.schema import DIGESTS
from manifests.shards import write_shard
from manifests.store import scratch_of, spool_folder
from manifests.tombstones import value_digest
from pipeline.execution.in_flight import InFlight, Part, batches
from pipeline.execution.step import Unit
from pipeline.steps.fetch.attempts import Past, carried, history, write_ledger
from pipeline.steps.fetch.known_urls import answered, serves_others
from pipeline.steps.fetch.limits import SAME, Terms
from pipeline.steps.fetch.local_images import OwnPictures
from pipeline.steps.fetch.pairs import Attempt, Result, Spool, dropped_of, pairs_table, samples, stats

if TYPE_CHECKING:
    from filters.fetch.budget import Share
    from filters.fetch.sites import SiteCache
    from filters.fetch.tally import Tally, Watch

SERVER_S = 10.0
THEIR_ROWS = 1000
"""Rows that img2dataset gets at a time: when a decoder takes the worker along, these are under suspicion."""


def need_server(address: str) -> None:
    """Raise RunOver where the run's own server of pictures does not answer any more: the run was killed, and what this
    worker, which an engine started, could not fetch since says nothing of the pictures."""
    if not address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), SERVER_S).close()
    except OSError as error:
        raise RunOver(f"the run whose pictures are served at {address} has ended; nothing was put") from error


@dataclass(frozen=True)
class FetchWorker:
    """Fetches a shard's URLs, in any order, and writes its outputs in the planned order.

    `memory`: what was learned of sites, kept from shard to shard.
    """

    root: Path
    config: FetchConfig
    limits: ImageLimits
    memory: "SiteCache"
    own: OwnPictures | None = None
    """Where the pictures are when they came with the input; None: on the web."""
    barred: frozenset[str] = frozenset()
    """Tombstones of pictures, by the digest of their sha256: what has one is `removed` under whatever URL it comes, and
    not stored."""
    named: DigestLists = field(default_factory=DigestLists)
    """Lists and tombstones of digests: a picture that one names is let go before it is decoded, or by its PDQ hash
    before it is stored, and nothing of it is written."""
    share: "Share | None" = None
    """Where the budget of each site is kept that the workers beside this one fetch under too."""
    alike: Mapping[str, Terms] = field(default_factory=dict)
    """Digests of settings under which rows were fetched that hold now too, with what holds of them."""
    details: list[dict[str, Any]] = field(default_factory=list)
    serving: str = ""
    """HOST:PORT of the run's own server of pictures, where it has one."""

    def run(self, unit: Unit, in_flight: InFlight) -> ShardRecord:
        """Write `pairs/NAME.{tar,parquet}`, `pairs/NAME_stats.json` and `ledger/fetch/NAME.parquet`."""
        root = self.root
        rows = read_table(root / unit.reads["plan"]).to_pylist()
        pairs = root / "pairs"
        pairs.mkdir(parents=True, exist_ok=True)
        digests = unit.reads.get("digests", DIGESTS)
        with tempfile.TemporaryFile(dir=spool_folder(pairs)) as file:
            spool = Spool(file)
            results = self._fetch(unit, rows, in_flight, spool)
            need_server(self.serving)
            write_shard(pairs / f"{unit.name}.tar", samples(rows, results, spool, digests))
        write_table(pairs / f"{unit.name}.parquet", pairs_table(rows, results, digests))
        dropped = dropped_of(results.values())
        write_json(pairs / f"{unit.name}_stats.json", stats(len(rows), dropped))
        ledger = write_ledger(root, unit, rows, results)
        self._log(unit)
        made = [FileRecord.of(root, pairs / f"{unit.name}{end}") for end in (".tar", ".parquet", "_stats.json")]
        return ShardRecord(
            unit.name, unit.key, (*made, ledger), len(rows), len(rows) - dropped.total(), dict(sorted(dropped.items()))
        )

    def _fetch(self, unit: Unit, rows: list[dict[str, Any]], in_flight: InFlight, spool: Spool) -> dict[bytes, Result]:
        """Return a result for every row: carried over, or asked for now."""
        past = history(self.root, self._made_by(unit), [row["uid"] for row in rows])
        earlier = carried(past, unit.reads.get("again", ()), spool)
        earlier |= {} if self.own else self._under_other_captions(unit, rows, earlier, past, spool)
        results = {uid: self._obeying(result, spool) for uid, result in earlier.items()}
        wanted = [row for row in rows if row["uid"] not in results]
        asked: dict[bytes, list[bytes]] = {}
        for uids in [[row["uid"]] for row in wanted] if self.own else _of_one_url(wanted):
            if any(map(in_flight.is_poisoned, uids)):  # what killed workers is not tried again under other captions
                results.update({uid: Result((*_before(past, uid), Attempt(reason="worker_died"))) for uid in uids})
            else:
                asked[uids[0]] = uids
        engine = self._ours if self.own or self.config.engine == "tessera" else self._theirs
        for got in engine(unit, [row for row in wanted if row["uid"] in asked], in_flight):
            results[got.uid] = first = self._result(got, past, spool)
            for uid in asked[got.uid][1:]:
                shared = replace(first, attempts=(*_before(past, uid), first.last))
                results[uid] = shared if first.stored else self._result(replace(got, uid=uid), past, spool)
        missing = [row["uid"].hex() for row in rows if row["uid"] not in results]
        if missing:
            raise AssertionError(f"fetch {unit.name}: no answer for {len(missing)} rows, the first is {missing[0]}")
        return results

    def _made_by(self, unit: Unit) -> Mapping[str, Terms]:
        """Return how rows were made that this unit may use; a repair's are its own."""
        key = unit.reads["made_by"]
        return self.alike if key in self.alike else {key: SAME}

    def _under_other_captions(
        self,
        unit: Unit,
        rows: list[dict[str, Any]],
        earlier: Mapping[bytes, Result],
        past: Mapping[bytes, Past],
        spool: Spool,
    ) -> dict[bytes, Result]:
        """Return the rows without an answer of before whose URL has one: of another row of this shard, else of one that
        lies aside or in another shard."""
        rest = {row["uid"]: identity(row["url"]) for row in rows if row["uid"] not in earlier}
        if not rest:
            return {}
        urls, known = set(rest.values()), dict[str, Result]()
        for row in rows if earlier else ():
            if (
                (found := earlier.get(row["uid"]))
                and serves_others(found.last)
                and (url := identity(row["url"])) in urls
            ):
                known.setdefault(url, found)
        again = unit.reads.get("again", ())
        known |= answered(self.root, self._made_by(unit), urls - known.keys(), again, spool, unit.name)
        return {
            uid: replace(known[url], attempts=(*_before(past, uid), known[url].last))
            for uid, url in rest.items()
            if url in known
        }

    def _ours(self, unit: Unit, wanted: list[dict[str, Any]], in_flight: InFlight) -> Iterator[Download]:
        """Yield what our client, or the folder that came with the input, and our image gate make of the rows, as they
        come."""
        for answer in self._answers(wanted, partial(_tell, unit.name, in_flight)):
            with in_flight.working_on(unit.name, [answer.uid]):
                got = Download(
                    answer.uid,
                    answer.reason,
                    answer.status,
                    answer.detail,
                    receipt=answer.receipt,
                    tries=answer.attempts,
                    digests=answer.digests,
                )
                body = None if self._hit(answer.digests) else answer.body
                yield got if body is None else self._gated(got, body, unit.reads.get("as_received", ()))

    def _gated(self, got: Download, body: bytes, as_received: Collection[str]) -> Download:
        """Return what a body's own words and the image gate make of it."""
        refused = embedded_refusal(body, self.config.opt_outs) if body else None
        try:
            return self._refused(got, body, refused) if refused else self._stored(got, body, as_received)
        except ImageFault as fault:
            return replace(got, reason=fault.reason, detail=fault.detail)

    def _answers(self, wanted: list[dict[str, Any]], watch: "Watch") -> Iterator[Answer]:
        """Ask for the rows; where lists of hashes are to be asked, bodies stay in memory until their digests are
        known."""
        if self.own:
            return self.own.answers(wanted)
        return fetch_all(
            _requests(wanted), self.config, self.memory, held=bool(self.named), share=self.share, watch=watch
        )

    def _stored(self, got: Download, body: bytes, as_received: Collection[str] = ()) -> Download:
        """Let a body through the image gate and hash the picture. Raises ImageFault.

        `as_received`: sha256 of pictures that a repair wants back as they were stored, with all that they held.
        """
        if as_received and hashlib.sha256(body).hexdigest() in as_received:
            header = inspect(body, self.limits)
            stored = Stored(body, header.width, header.height, header.width, header.height)
        else:
            stored = store(body, self.limits)
        digests = replace(got.digests, pdq=pdq_of(stored, body, self.limits))
        return replace(got, stored=replace(stored, picture=None), digests=digests)

    def _refused(self, got: Download, body: bytes, receipt: Receipt) -> Download:
        """Return what becomes of a picture that refuses training within itself: of one that a list of PDQ names, its
        digests, since it is to be removed."""
        if "pdq" in self.named.kinds:
            with contextlib.suppress(ImageFault):
                digests = self._stored(got, body).digests
                if self._hit(digests):
                    return replace(got, digests=digests)
        return replace(got, reason="opted_out", receipt=receipt, detail=f"{receipt.rule}: {receipt.value}")

    def _theirs(self, unit: Unit, wanted: list[dict[str, Any]], in_flight: InFlight) -> Iterator[Download]:
        """Yield what img2dataset makes of the rows."""
        for batch in batches(((request.uid, request) for request in _requests(wanted)), THEIR_ROWS, in_flight):
            with in_flight.working_on(unit.name, [uid for uid, _ in batch]):
                yield from download([request for _, request in batch], self.config, self.limits)

    def _result(self, got: Download, past: Mapping[bytes, Past], spool: Spool) -> Result:
        """Spool the picture, or note in the log why there is none."""
        receipt, digests = got.receipt, got.digests
        if got.stored is not None and digests.pdq is None:  # the other engine lets go of what it received
            digests = replace(digests, pdq=pdq_of_jpeg(got.stored.jpeg))
        if hit := self._hit(digests):
            return Result((*_before(past, got.uid), _of_hit(hit, got.status)))
        removed = got.stored is not None and self._bars(got.stored.jpeg)
        reason = "removed" if removed else got.reason
        rule, value = (receipt.rule, receipt.value) if receipt else (None, None)
        attempts = (*_before(past, got.uid), Attempt(got.status, reason, rule, value, digests))
        if got.stored is not None and not removed:
            return Result(attempts, replace(got.stored, jpeg=b""), *spool.put(got.stored.jpeg))
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.details.append(
            {"uid": got.uid.hex(), "reason": reason, "at": now, "tries": got.tries, "detail": got.detail[:300]}
        )
        return Result(attempts)

    def _obeying(self, result: Result, spool: Spool) -> Result:
        """Leave out a picture that was carried over and removed meanwhile."""
        if hit := self._hit(result.last.digests):
            return Result((*result.attempts[:-1], _of_hit(hit, result.last.http_status)))
        if result.stored is None or not self._bars(spool.get(result.start, result.length)):
            return result
        return Result((*result.attempts[:-1], replace(result.last, reason="removed")))

    def _bars(self, jpeg: bytes) -> bool:
        return bool(self.barred) and value_digest(hashlib.sha256(jpeg).hexdigest()) in self.barred

    def _hit(self, digests: Digests) -> Hit | None:
        """Return what names a picture by one of its digests."""
        found = (self.named.hit(kind, getattr(digests, kind)) for kind in self.named.kinds)
        return next((hit for hit in found if hit), None)

    def _log(self, unit: Unit) -> None:
        """Append what failed, and when, to the shard's log: it is no output, and a retry does not wipe out what was
        before."""
        path = scratch_of(self.root) / "logs" / "fetch" / f"{unit.name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            for entry in sorted(self.details, key=lambda entry: entry["uid"]):
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.details.clear()


def _tell(unit: str, in_flight: InFlight, tally: "Tally") -> None:
    """Leave word for the driver how far the unit is."""
    in_flight.tell(Part(unit, tally.done, tally.total, tally.slowest))


def _requests(rows: list[dict[str, Any]]) -> list[Request]:
    return [Request(row["uid"], row["url"]) for row in rows]


def _of_hit(hit: Hit, status: int | None) -> Attempt:
    """Return the attempt of a picture that a list names: by which list and kind of digest, and the digest's hash."""
    return Attempt(status, "removed", *hit.receipt)


def _of_one_url(rows: list[dict[str, Any]]) -> list[list[bytes]]:
    """Return the uids of rows whose URL is one, in whatever spelling, in the order of their first rows: it is asked for
    once."""
    found: dict[str, list[bytes]] = {}
    for row in rows:
        found.setdefault(identity(row["url"]), []).append(row["uid"])
    return list(found.values())


def _before(past: Mapping[bytes, Past], uid: bytes) -> tuple[Attempt, ...]:
    return past[uid].attempts if uid in past else ()
