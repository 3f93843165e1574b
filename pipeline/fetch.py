"""filter / fetch: get each surviving URL once, let its bytes through the image gate, lay pairs out as img2dataset does."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import pyarrow as pa

from filters.fetch.config import FetchConfig
from filters.fetch.images import ImageFault, ImageLimits, Stored, store
from manifests.files import read_table, write_json, write_table, writing
from manifests.manifest import FileRecord, ShardRecord
from manifests.schema import schema
from manifests.shards import read_shard, write_shard
from pipeline.hands import Hands
from pipeline.inputs import input_batches
from pipeline.plans import connect, files_sql, write_plan
from pipeline.reuse import earlier_rows, stamp
from pipeline.select import CARRIED, SCORES
from pipeline.steps import Step, Unit, records_of

PLANNED = ("uid", "source", "source_row", "url", *CARRIED)
METADATA = ("top_caption", *SCORES)
ATTEMPTS = pa.schema([*schema("uid"), pa.field("attempt", pa.int16()), pa.field("http_status", pa.int16()), *schema("reason")])
"""`ledger/fetch/*.parquet`: a row per attempt; reason null where a picture came through."""
PACE = {"host_connections", "host_rate", "max_crawl_delay_s", "max_wait_s", "breaker_faults", "breaker_rest_s"}
NOT_IN_DIGEST = {"connect_to", "concurrency", "user_agent", "retries", *PACE}


@dataclass(frozen=True)
class Fetch(Step):
    """Units are `fetch.shard_rows` survivors in input order, the first row of each uid.

    Files that were added to the data set later begin a shard of their own, so that shards that were there stay as they are.
    """

    name: ClassVar[str] = "fetch"
    version: ClassVar[int] = 1
    carries: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """Return the recipe's [fetch] without what only says how to get there."""
        values = {key: value for key, value in self.recipe.plain()["fetch"].items() if key not in NOT_IN_DIGEST}
        return {**values, "store_side": self.recipe.store_side}

    def plan(self) -> list[Unit]:
        """Write the shards' rows to `manifests/plan/fetch/`."""
        ledgers = [self.root / record.files[0].path for record in records_of(self.root, "select")]
        planned = write_plan(self.root, self.name, self._shards(ledgers)) if ledgers else []
        reads = {"made_by": self.own_key}
        return [Unit(name, {**reads, "plan": path.relative_to(self.root).as_posix()}, sha256) for name, path, sha256 in planned]

    def _shards(self, ledgers: list[Path]) -> Iterator[tuple[str, pa.Table]]:
        query = f"""
            SELECT {", ".join(PLANNED)}, batch FROM (
                SELECT *, row_number() OVER (PARTITION BY uid ORDER BY filename, file_row_number) AS nth
                FROM {files_sql(ledgers)} WHERE reason IS NULL
            ) JOIN inputs USING (source) WHERE nth = 1 ORDER BY filename, file_row_number"""
        with connect(self.root) as connection:
            connection.register("inputs", input_batches(self.root))
            rows = connection.execute(query).to_arrow_reader(self.recipe.fetch.shard_rows)
            for number, table in enumerate(regroup(one_batch_each(rows), self.recipe.fetch.shard_rows)):
                yield f"{number:05d}", table.select(PLANNED).cast(schema(*PLANNED))

    def open(self) -> "FetchWorker":
        """Fix limits and the map of hosts."""
        config = self.recipe.fetch
        if self.runtime.connect_to:
            config = config.model_copy(update={"connect_to": {**dict(config.connect_to), **self.runtime.connect_to}})
        return FetchWorker(self, config, ImageLimits(config.max_pixels, self.recipe.store_side, config.jpeg_quality))


def one_batch_each(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cut record batches where the column `batch` changes; rows stay in order."""
    for rows in batches:
        numbers = rows["batch"].to_numpy()
        ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), rows.num_rows]
        for start, end in pairwise([0, *ends]):
            yield rows.slice(start, end - start)


def regroup(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Yield tables of exactly `rows` rows from batches of any size; the last one, and the last before `batch` changes, is shorter."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if waiting and batch.num_rows and batch["batch"][0] != waiting[0]["batch"][0]:
            yield pa.Table.from_batches(waiting)
            waiting, count = [], 0
        while batch.num_rows:
            part = batch.slice(0, rows - count)
            waiting.append(part)
            count, batch = count + part.num_rows, batch.slice(part.num_rows)
            if count == rows:
                yield pa.Table.from_batches(waiting)
                waiting, count = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


@dataclass
class Result:
    """What became of one planned row: a stored picture in the spool, or a reason."""

    reason: str | None
    http_status: int | None = None
    stored: Stored | None = None
    start: int = 0
    length: int = 0


@dataclass
class Spool:
    """Pictures in order of arrival, on disk, so that memory does not grow with the shard."""

    file: IO[bytes]
    end: int = 0

    def put(self, data: bytes) -> tuple[int, int]:
        """Append bytes; return (start, length)."""
        self.file.seek(self.end)
        self.file.write(data)
        start, self.end = self.end, self.end + len(data)
        return start, len(data)

    def get(self, start: int, length: int) -> bytes:
        """Return bytes put earlier."""
        self.file.seek(start)
        return self.file.read(length)


@dataclass(frozen=True)
class FetchWorker:
    """Fetches a shard's URLs, in any order, and writes its outputs in the planned order."""

    step: Fetch
    config: FetchConfig
    limits: ImageLimits
    details: list[dict[str, Any]] = field(default_factory=list)

    def run(self, unit: Unit, hands: Hands) -> ShardRecord:
        """Write `pairs/NAME.{tar,parquet}`, `pairs/NAME_stats.json` and `ledger/fetch/NAME.parquet`."""
        rows = read_table(self.step.root / unit.reads["plan"]).to_pylist()
        pairs = self.step.root / "pairs"
        pairs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=pairs) as file:
            spool = Spool(file)
            results = self._fetch(unit, rows, hands, spool)
            write_shard(pairs / f"{unit.name}.tar", self._samples(rows, results, spool))
        write_table(pairs / f"{unit.name}.parquet", _table(rows, results))
        dropped = Counter(result.reason for result in results.values() if result.reason)
        write_json(pairs / f"{unit.name}_stats.json", _stats(len(rows), dropped))
        ledger = self.step.root / "ledger" / "fetch" / f"{unit.name}.parquet"
        write_table(ledger, stamp(_attempts(rows, results), unit.reads["made_by"]))
        self._log(unit)
        files = [pairs / f"{unit.name}.tar", pairs / f"{unit.name}.parquet", pairs / f"{unit.name}_stats.json", ledger]
        records = tuple(FileRecord.of(self.step.root, path) for path in files)
        return ShardRecord(unit.name, unit.key, records, len(rows), len(rows) - dropped.total(), dict(sorted(dropped.items())))

    def _fetch(self, unit: Unit, rows: list[dict[str, Any]], hands: Hands, spool: Spool) -> dict[bytes, Result]:
        from filters.fetch.client import Request, fetch_all

        earlier = earlier_rows(self.step.root, "fetch", unit.reads["made_by"], [row["uid"] for row in rows])
        results = {**_carried(earlier, spool), **{row["uid"]: Result("worker_died") for row in rows if hands.deadly(row["uid"])}}
        wanted = [Request(row["uid"], row["url"]) for row in rows if row["uid"] not in results]
        for answer in fetch_all(wanted, self.config):
            with hands.holding(unit.name, [answer.uid]):
                results[answer.uid] = self._through_the_gate(answer, spool)
        missing = [row["uid"].hex() for row in rows if row["uid"] not in results]
        if missing:
            raise AssertionError(f"fetch {unit.name}: no answer for {len(missing)} rows, the first is {missing[0]}")
        return results

    def _through_the_gate(self, answer: Any, spool: Spool) -> Result:
        result = Result(answer.reason, answer.status)
        detail = answer.detail
        if answer.reason is None:
            try:
                stored = store(answer.body, self.limits)
                start, length = spool.put(stored.jpeg)
                result = replace(result, stored=replace(stored, jpeg=b""), start=start, length=length)
            except ImageFault as fault:
                result, detail = replace(result, reason=fault.reason), fault.detail
        if result.reason:
            self.details.append({"uid": answer.uid.hex(), "reason": result.reason, "detail": str(detail)[:300]})
        return result

    def _samples(self, rows: list[dict[str, Any]], results: Mapping[bytes, Result], spool: Spool) -> Iterator[tuple[str, dict[str, bytes]]]:
        import hashlib

        for row in rows:
            result = results[row["uid"]]
            if result.stored is None:
                continue
            jpeg = spool.get(result.start, result.length)
            row["sha256"] = hashlib.sha256(jpeg).hexdigest()
            note = json.dumps(_pair(row, result), ensure_ascii=False, allow_nan=False)
            yield row["uid"].hex(), {"jpg": jpeg, "txt": (row["text"] or "").encode(), "json": note.encode()}

    def _log(self, unit: Unit) -> None:
        path = self.step.root / "logs" / "fetch" / f"{unit.name}.jsonl"
        with writing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for entry in sorted(self.details, key=lambda entry: entry["uid"]):
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.details.clear()


def _carried(earlier: Mapping[bytes, dict[str, Any]], spool: Spool) -> dict[bytes, Result]:
    """Return what an earlier plan's shards already hold of these rows: their pictures, or why there is none."""
    results = {uid: Result(row["reason"], row["http_status"]) for uid, row in earlier.items() if row["reason"]}
    for ledger in sorted({row["file"] for row in earlier.values() if row["reason"] is None}):
        for key, sample in read_shard(ledger.with_name(ledger.name.replace("-ledger.parquet", "-pairs.tar"))):
            uid = bytes.fromhex(key)
            if uid in earlier and uid not in results:
                note = json.loads(sample["json"])
                stored = Stored(b"", *(note[name] for name in ("width", "height", "original_width", "original_height")))
                results[uid] = Result(None, earlier[uid]["http_status"], stored, *spool.put(sample["jpg"]))
    return results


def _pair(row: Mapping[str, Any], result: Result) -> dict[str, Any]:
    """Return a pair's row in img2dataset's words, and what the input said of it."""
    stored = result.stored
    sizes = ("width", "height", "original_width", "original_height")
    return {
        "key": row["uid"].hex(),
        "url": row["url"],
        "caption": row["text"],
        "status": "success" if stored else ("failed_to_resize" if result.http_status == 200 else "failed_to_download"),
        "error_message": result.reason,
        **{name: getattr(stored, name) if stored else None for name in sizes},
        "sha256": row.get("sha256"),
        **{name: row[name] for name in METADATA},
    }


def _table(rows: list[dict[str, Any]], results: Mapping[bytes, Result]) -> pa.Table:
    text = {name: pa.string() for name in ("key", "url", "caption", "status", "error_message")}
    sizes = {name: pa.int32() for name in ("width", "height", "original_width", "original_height")}
    wanted = pa.schema({**text, **sizes, "sha256": pa.string(), **{f.name: f.type for f in schema(*METADATA)}})
    return pa.Table.from_pylist([_pair(row, results[row["uid"]]) for row in rows], schema=wanted)


def _stats(count: int, dropped: Counter[str]) -> dict[str, Any]:
    """Return img2dataset's shard statistics without its times, which are in logs/."""
    image = sum(dropped[reason] for reason in ("not_an_image", "too_many_pixels", "animated", "truncated", "corrupt"))
    successes = count - dropped.total()
    return {
        "count": count,
        "successes": successes,
        "failed_to_download": dropped.total() - image,
        "failed_to_resize": image,
        "status_dict": {"success": successes, **dict(sorted(dropped.items()))},
    }


def _attempts(rows: list[dict[str, Any]], results: Mapping[bytes, Result]) -> pa.Table:
    entries = [
        {"uid": row["uid"], "attempt": 1, "http_status": results[row["uid"]].http_status, "reason": results[row["uid"]].reason}
        for row in rows
    ]
    return pa.Table.from_pylist(entries, schema=ATTEMPTS)
