"""Ask the sites of kept rows again whether they still allow it, and list the rows that they refuse now.

Answers lie in parts of PART_ROWS rows below `recheck/`, so that what was stopped goes on; the finished list replaces
them. Nothing here is in a digest, and no picture is asked for.
"""

import csv
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from filters.fetch.config import FetchConfig
from filters.fetch.headers import header_answers, site_answers
from filters.fetch.messages import Answer, Request
from filters.fetch.sites import SiteCache
from filters.fetch.url import identity
from manifests.files import FormatError, digest_of, read_json, read_table, write_bytes, write_json
from manifests.journal import FileRecord, records_of
from manifests.store import drop
from pipeline.execution.progress import EVERY_S, clock
from pipeline.execution.run_folder import locked
from pipeline.execution.step import Runtime
from pipeline.recipes.datasets import DATASETS
from pipeline.recipes.schema import Recipe, RecipeError

FOLDER = "recheck"
LIST = "refused.csv"
"""`recheck/refused.csv`: uid, reason, rule and value of each row that is refused now; a list for `pipeline remove`."""
COLUMNS = ("uid", "reason", "rule", "value")
ROUND = "round.json"
"""Which rows a round asks for, and whether it has ended: another plan, or an end, begins a new one."""
PART_ROWS = 10_000


@dataclass(frozen=True)
class Rechecked:
    """What a round found. `unknown`: rows by why nothing could be learned of them; `refusals`: rows by signal."""

    rows: int
    allowed: int
    refused: int
    unknown: dict[str, int]
    refusals: dict[str, int]
    list: Path


@dataclass
class _Shown:
    """The progress of a round on stderr."""

    rows: int = 0
    refused: int = 0
    started: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)

    def add(self, rows: int, refused: int, last: bool = False) -> None:
        """Count rows, and print the line where it is time to."""
        self.rows, self.refused = self.rows + rows, self.refused + refused
        now = time.monotonic()
        if last or now - self.shown >= EVERY_S:
            self.shown, elapsed = now, now - self.started
            rate = self.rows / elapsed if elapsed else 0.0
            line = f"  recheck  {self.rows:,} rows  {rate:,.0f} rows/s  refused {self.refused:,}  {clock(elapsed)}"
            print(line, file=sys.stderr, flush=True)


def recheck_run(root: Path, recipe: Recipe, runtime: Runtime, sites_only: bool = False) -> Rechecked:
    """Ask for every kept row again, and write the list of those that are refused.

    A round that was stopped goes on with the parts that it lacks. Raises RecipeError where the pictures came with the
    input or nothing was kept yet, FormatError, OSError.
    """
    if DATASETS[recipe.input.dataset].local:
        raise RecipeError(f"{root}: its pictures came with the input; there is no site to ask again")
    with locked(root):
        files = [file for record in records_of(root, "decide") for file in record.files]
        if not files:
            raise RecipeError(f"{root}: no row has a fate yet; first: pipeline run --stage filter")
        folder, config = root / FOLDER, _config(recipe, runtime)
        plan = digest_of([[file.sha256 for file in files], config.robots, config.opt_outs, sites_only])
        _begin(folder, plan)
        parts = list(_parts(root, files, config, sites_only))
        done = _finished(folder, parts)
        write_json(folder / ROUND, {"plan": plan, "ended": True})
        drop(folder / "parts")
        return done


def _config(recipe: Recipe, runtime: Runtime) -> FetchConfig:
    """Return how sites are asked."""
    config = recipe.fetch
    hosts = {**dict(config.connect_to), **runtime.connect_to}
    return config.model_copy(update={"connect_to": hosts})


def _begin(folder: Path, plan: str) -> None:
    """Sweep what an earlier round left, unless it is this one, half-way."""
    try:
        known = read_json(folder / ROUND)
    except (OSError, FormatError):
        known = {}
    if known.get("plan") != plan or known.get("ended") is not False:
        drop(folder)
        (folder / "parts").mkdir(parents=True)
        write_json(folder / ROUND, {"plan": plan, "ended": False})


def _parts(
    root: Path, files: Sequence[FileRecord], config: FetchConfig, sites_only: bool
) -> Iterator[Mapping[str, Any]]:
    """Yield every part: what was asked before, or is asked now and written."""
    memory, shown = SiteCache(), _Shown()
    for file in files:
        table = read_table(root / file.path, ["uid", "url", "fate"])
        rows = table.filter(pc.equal(table["fate"], "kept")).select(["uid", "url"])
        for number, start in enumerate(range(0, rows.num_rows, PART_ROWS)):
            path = root / FOLDER / "parts" / f"{Path(file.path).stem}-{number:05d}.json"
            if not path.exists():
                part = rows.slice(start, PART_ROWS).to_pylist()
                write_json(path, _asked(part, config, memory, sites_only, shown), sealed=True)
            yield read_json(path)
    shown.add(0, 0, last=True)


def _asked(
    rows: list[dict[str, Any]], config: FetchConfig, memory: SiteCache, sites_only: bool, shown: _Shown
) -> dict[str, Any]:
    """Ask for the URLs of some rows, each once; return their number, outcomes, and the receipts of refusals."""
    same: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        same.setdefault(identity(row["url"]), []).append(row)
    requests = [Request(found[0]["uid"], found[0]["url"]) for found in same.values()]
    rows_of = {found[0]["uid"]: [row["uid"] for row in found] for found in same.values()}
    outcomes: Counter[str] = Counter()
    refused: list[list[str]] = []
    for answer in (site_answers if sites_only else header_answers)(requests, config, memory):
        mine = rows_of[answer.uid]
        outcomes[_outcome(answer)] += len(mine)
        if receipt := answer.receipt:
            refused += [[uid.hex(), str(answer.reason), receipt.rule, receipt.value] for uid in mine]
        shown.add(len(mine), len(mine) if answer.receipt else 0)
    return {"rows": len(rows), "outcomes": dict(sorted(outcomes.items())), "refused": sorted(refused)}


def _outcome(answer: Answer) -> str:
    if answer.receipt:
        return "refused"
    return "allowed" if answer.reason is None else answer.reason


def _finished(folder: Path, parts: Sequence[Mapping[str, Any]]) -> Rechecked:
    """Write the list, and return what the round found."""
    outcomes: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part in parts:
        outcomes.update(part["outcomes"])
        refusals.update(rule for _, _, rule, _ in part["refused"])
        writer.writerows(part["refused"])
    path = folder / LIST
    write_bytes(path, text.getvalue().encode())
    unknown = {name: count for name, count in sorted(outcomes.items()) if name not in ("allowed", "refused")}
    found = (outcomes.total(), outcomes["allowed"], outcomes["refused"])
    return Rechecked(*found, unknown, dict(sorted(refusals.items())), path)
