"""filter / fetch: get each surviving URL once, let its bytes through the image gate, lay pairs out as img2dataset
does."""

import contextlib
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from filters.barred import BarredUrls
from filters.digest_lists import DigestLists
from filters.fetch.config import require_packages
from filters.fetch.img2dataset import LACKS, missing
from filters.fetch.optout import FORMER, LATER
from filters.images.decode import ImageLimits
from manifests.files import FormatError, read_schema, write_json
from manifests.journal import FileRecord, ShardRecord, records_of
from manifests.tombstones import read_tombstones
from manifests.working_copy import links_in_the_way
from pipeline.execution.redaction import RemovedRows, need_whole
from pipeline.execution.stand_ins import StandIn
from pipeline.execution.step import Step, Unit
from pipeline.recipes.datasets import DATASETS
from pipeline.recipes.lists import exclusions
from pipeline.recipes.schema import RecipeError
from pipeline.steps.fetch.attempts import REFUSING, counted_again, refusals
from pipeline.steps.fetch.hits import take_out
from pipeline.steps.fetch.known_urls import note_urls
from pipeline.steps.fetch.limits import made_alike, note_settings, standing_for
from pipeline.steps.fetch.local_images import OwnPictures
from pipeline.steps.fetch.pairs import stats
from pipeline.steps.fetch.plan import PLANNED, FetchPlan
from pipeline.steps.fetch.retry import with_retries
from pipeline.steps.fetch.worker import FetchWorker

__all__ = ["PLANNED", "Fetch"]
PACE = {"host_connections", "host_rate", "max_crawl_delay_s", "max_wait_s", "breaker_faults", "breaker_rest_s"}
NOT_IN_DIGEST = {"connect_to", "concurrency", "user_agent", "retries", *PACE}
ADDED: dict[str, Any] = {"keep_metadata": False, "robots_4xx": "allow"}
"""Keys of [fetch] that came later, with the value under which shards of before count as made: it stays out of the key
of the step, so that nothing that was fetched is asked for again."""


@dataclass(frozen=True)
class Fetch(Step):
    """Units are `fetch.shard_rows` survivors in input order, the first row of each uid.

    Files that were added to the data set later begin a shard of their own, so that shards that were there stay as they
    are.
    """

    name: ClassVar[str] = "fetch"
    version: ClassVar[int] = 2
    carries: ClassVar[bool] = True
    made_from: ClassVar[str] = ""
    needs: ClassVar[tuple[type[Step], ...]] = (FetchPlan,)
    reason_column: ClassVar[str] = "error_message"
    noun: ClassVar[str] = "URLs"

    def settings(self) -> dict[str, Any]:
        """Return the recipe's [fetch] without what only says how to get there."""
        values = {key: value for key, value in self.recipe.plain()["fetch"].items() if key not in NOT_IN_DIGEST}
        values = {key: value for key, value in values.items() if key not in ADDED or value != ADDED[key]}
        return {**values, **_opt_outs(values["opt_outs"]), "store_side": self.recipe.store_side}

    def plan(self) -> list[Unit]:
        """Return a unit for each table of `manifests/plan/fetch/`, which follows the select ledger."""
        note_settings(self.root, self.own_key, self.settings())  # before the plan that verify expects it beside
        plan = FetchPlan(self.recipe, self.root, self.runtime)
        plan.make()
        units = [
            Unit(name, {"made_by": self.own_key, "plan": path.relative_to(self.root).as_posix()}, sha256)
            for name, path, sha256 in plan.standing() or []
        ]
        return with_retries(self, units)

    def prepare(self, pending: Sequence[Unit]) -> None:
        """Note where URLs that will be asked for were answered before."""
        if not DATASETS[self.recipe.input.dataset].local:
            note_urls(self.root, self.alike(), [unit.name for unit in pending])

    def alike(self) -> Collection[str]:
        """Return the digests of settings under which what was fetched holds now, as far as limits say."""
        return made_alike(self.root, self.own_key, self.settings())

    def stand_ins(self, made_by: str) -> Mapping[str, StandIn]:
        """Return the settings under which the same answers serve as those of `made_by`, as far as limits say."""
        return standing_for(self.root, made_by, {self.own_key: json.loads(json.dumps(self.settings()))})

    def facts(self) -> dict[str, Any]:
        """Return `refusals`: signal -> rows that it refused, and `removed_by_list`: list of hashes -> rows whose
        pictures it named; each where there are any."""
        refused = [
            record for record in records_of(self.root, self.name) if not record.dropped.keys().isdisjoint(REFUSING)
        ]
        counts = refusals(self.root, [self.root / record.files[-1].path for record in refused])
        listed = Counter(read_tombstones(self.root).by_list)
        for record in records_of(self.root, "select"):
            listed.update(record.read.get("removed_by_list", {}))
        found = {"refusals": counts, "removed_by_list": dict(sorted(listed.items()))}
        return {name: fact for name, fact in found.items() if fact}

    def redact(self, record: ShardRecord, removed: RemovedRows) -> ShardRecord:
        """Take the rows that go out of pairs and attempts, and count img2dataset's statistics again."""
        redacted = super().redact(record, removed)
        if redacted is record:
            return record
        tar, table, statistics, ledger = redacted.files
        need_whole(self.root, [statistics])
        write_json(self.root / statistics.path, stats(redacted.rows_in, Counter(redacted.dropped)))
        files = (tar, table, FileRecord.of(self.root, self.root / statistics.path), counted_again(self.root, ledger))
        return replace(redacted, files=files)

    def settle(self, steps: Sequence[Step]) -> list[str]:
        """Take the rows whose pictures a list of hashes has named, here or in what was set aside, out of the whole
        run."""
        named = DigestLists.of(exclusions(self.recipe), read_tombstones(self.root))
        taken, aside = take_out(steps, named)
        said = [f"  removed by {name}: {rows:,} rows, of which nothing is left" for name, rows in sorted(taken.items())]
        return [*said, *([f"  removed by lists of hashes from what was set aside: {aside:,} rows"] if aside else [])]

    def check(self) -> None:
        """Raise MissingExtra where a package of the extra `fetch` is not installed."""
        require_packages()

    def notes(self) -> list[str]:
        """Say what shards of before were not asked about, and warn of the other engine. Raises RecipeError where that
        cannot run, or what lists of hashes name could not be taken out."""
        named = DigestLists.of(exclusions(self.recipe), read_tombstones(self.root))
        links = links_in_the_way(self.root) if named and self.root.is_dir() else []
        if links:
            raise RecipeError(
                f"{links[0]}: rows that lists of hashes name could not be taken out there; put files and folders of"
                " other disks in the place of such links, or move the whole run to where they lead"
            )
        if self.recipe.fetch.engine == "tessera" or DATASETS[self.recipe.input.dataset].local:
            return [*self._unasked(), *self._shares()]
        if why := missing():
            raise RecipeError(f'fetch.engine = "img2dataset": {why}; the other choice is "tessera"')
        if named:
            raise RecipeError(
                'fetch.engine = "img2dataset" writes pictures to disk before lists of md5, sha1, source_sha256 or pdq'
                ' can be asked; wanted "tessera" with such lists in filter.exclude or among tombstones'
            )
        return [f'warning: fetch.engine = "img2dataset" has {LACKS}']

    def _unasked(self) -> list[str]:
        """Say which words were not known when shards of an earlier version were fetched: their tables lack digests."""
        words = [word for word in self.recipe.fetch.opt_outs if word in LATER]
        records = records_of(self.root, self.name) if words and not DATASETS[self.recipe.input.dataset].local else []
        for record in (*records[:1], *records[-1:]):
            with contextlib.suppress(OSError, FormatError):  # verify's business
                if "md5" not in read_schema(self.root / record.files[-1].path).names:
                    known = ", ".join(words)
                    return [
                        f"note: shards of an earlier version were fetched before {known} were obeyed; pipeline recheck"
                        f" {self.root} asks their sites again"
                    ]
        return []

    def _shares(self) -> list[str]:
        """Say what each worker of a cluster takes of a site's budget. Raises RecipeError where it cannot be cut."""
        lanes, most = self.runtime.lanes, self.recipe.fetch.host_connections
        if lanes == 1 or DATASETS[self.recipe.input.dataset].local:
            return []
        wanted = f"wanted 1 to {most} (fetch.host_connections), since each takes its part of what a site is asked for"
        if not 1 <= lanes <= most:
            got = lanes or "nothing that says how many"
            raise RecipeError(f"workers of a cluster that fetch at once: got {got}, {wanted}: give --workers")
        return [f"each of {lanes} workers takes 1/{lanes} of fetch.host_rate and fetch.host_connections"]

    def open(self) -> FetchWorker:
        """Fix limits and the map of hosts."""
        from filters.fetch.budget import Share
        from filters.fetch.sites import SiteCache

        config = self.recipe.fetch
        if self.runtime.connect_to:
            config = config.model_copy(update={"connect_to": {**dict(config.connect_to), **self.runtime.connect_to}})
        lanes, budget = self.runtime.lanes, self.runtime.budget
        share = Share(Path(budget), self.runtime.lane, lanes) if budget else None
        config = config if budget else config.part(max(1, lanes))
        own = OwnPictures.of(self.root, config.max_bytes) if DATASETS[self.recipe.input.dataset].local else None
        limits = ImageLimits(config.max_pixels, self.recipe.store_side, config.jpeg_quality, config.keep_metadata)
        tombstones = read_tombstones(self.root)
        barred = frozenset(tombstones.values("sha256").to_pylist())
        lists = exclusions(self.recipe)
        named, bars = DigestLists.of(lists, tombstones), BarredUrls.of(lists, tombstones).names
        alike = made_alike(self.root, self.own_key, self.settings())
        return FetchWorker(
            *(self.root, config, limits, SiteCache(bars=bars), own, barred, named, share, alike),
            serving=self.runtime.serving,
        )


def _opt_outs(words: list[str]) -> dict[str, list[str]]:
    """Return what of `fetch.opt_outs` is part of the key: the words of before as they stand, and which of the later
    ones are off: none where all are obeyed, so that shards of before keep their key."""
    off = [word for word in LATER if word not in words]
    former = [word for word in words if word in FORMER]
    return {"opt_outs": former, **({"opt_outs_off": off} if off else {})}
