"""Retry: pipeline/steps/fetch/retry.py and attempts.py: only what failed is asked again, and the end is
as if it had never failed."""

import hashlib
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import write_table
from manifests.journal import FileRecord, Journal, ShardRecord
from manifests.manifest import Manifest
from manifests.reasons import TRANSIENT, is_among
from manifests.tables import ATTEMPTS
from pipeline.execution.step import Runtime, Unit
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.stages.run import StageOptions, run_stage
from pipeline.steps.fetch.retry import parse_reasons, with_retries
from tests.support.commands import run_here
from tests.support.filter_runs import run_filter
from tests.support.http_server import Handler, Server
from tests.support.keep_runs import without_beam
from tests.support.killed_runs import kill_when
from tests.support.records import uid
from tests.support.removals import holding
from tests.support.small_web import jpeg, picture

RECIPE = """
[input]
files = "{folder}/in.parquet"
[output]
root = "{folder}/run"
[fetch]
allow_addresses = ["127.0.0.0/8"]
user_agent = "tessera-test (+mailto:test@example.org)"
max_wait_s = 0
host_rate = 10_000
connect_to = {{ "flaky.test" = "{web}" }}
shard_rows = 5
[filter]
rules = [{{ use = "size", min_side = 64 }}]
[tier.pretrain]
size = 64
"""


def test_reasons_are_read_and_checked() -> None:
    assert parse_reasons(["transient"]) == TRANSIENT
    assert set(parse_reasons(["http_404", "transient"])) == {"http_404", *TRANSIENT}
    assert parse_reasons(["dns,timeout", "http_503 dns"]) == ("dns", "timeout", "http_503")
    for word in ("", " ,", "size", "http_", "http_5x", "http_055", "exact_duplicate"):
        with pytest.raises(
            RecipeError, match=r"no such reason of fetch; choices: animated, bad_response, .* http_404 .any status."
        ):
            parse_reasons([word])
    assert [is_among(reason, ("http_5xx", "dns")) for reason in ("http_503", "http_404", "dns", None, "timeout")] == [
        True, False, True, False, False,
    ]  # fmt: skip


class Flaky:
    """A small web that is `broken` at first: then every /N.jpg with N % 3 == 0 is a 503 and N % 3 == 1 a picture; 404
    stays."""

    def __init__(self) -> None:
        self.broken = True
        self.slow = 0.0
        self.hits: list[str] = []
        outer = self

        class Asked(Handler):
            def do_GET(self) -> None:
                outer.hits.append(self.path)
                time.sleep(outer.slow)
                self.answer(*outer.answer(self.path))

        self.server = Server(Asked)
        self.address = self.server.address

    def answer(self, path: str) -> tuple[int, bytes]:
        if not path.endswith(".jpg"):
            return 404, b""
        number = int(path[1:-4])
        if number == 14:
            return 404, b""
        if self.broken and number % 3 == 0:
            return (503 if number < 12 else 429), b""
        return 200, jpeg(picture(number))

    def pictures(self, since: int) -> list[str]:
        return sorted(path for path in self.hits[since:] if path.endswith(".jpg"))


@pytest.fixture
def flaky():
    web = Flaky()
    yield web
    web.server.close()


def prepare(folder: Path, web: Flaky) -> Path:
    folder.mkdir(exist_ok=True)
    names = [f"http://flaky.test/{number}.jpg" for number in range(15)]
    pq.write_table(pa.table({"URL": names, "TEXT": [f"picture {n}" for n in range(15)]}), folder / "in.parquet")
    (folder / "recipe.toml").write_text(RECIPE.format(folder=folder, web=web.address))
    return folder / "recipe.toml"


def run(recipe: Path, *args: str, code: int = 0) -> str:
    return run_here(recipe, "filter", *args, code=code).output


def ledger(root: Path) -> list[dict[str, object]]:
    return pa.concat_tables(
        pq.read_table(path) for path in sorted((root / "ledger" / "fetch").glob("*.parquet"))
    ).to_pylist()


def digest(root: Path) -> str:
    return Manifest.read(root / "manifests" / "filter.json").digest


@pytest.mark.slow
def test_only_what_failed_is_asked_again(tmp_path: Path, flaky: Flaky) -> None:
    recipe = prepare(tmp_path / "a", flaky)
    root = tmp_path / "a" / "run"
    run(recipe)
    assert Manifest.read(root / "manifests" / "filter.json").dropped == {"http_503": 4, "http_404": 1, "http_429": 1}
    before, tars = digest(root), {path: path.stat().st_mtime_ns for path in (root / "pairs").glob("*.tar")}

    flaky.broken, start = False, len(flaky.hits)
    assert "retry: 5 rows in 3 shards are asked again (http_503 4, http_429 1)" in run(
        recipe, "--retry-failed", "transient", "--dry-run"
    )
    assert "no row failed with dns, tls: nothing is asked again" in run(
        recipe, "--retry-failed", "dns", "--retry-failed", "tls"
    )
    assert (flaky.hits[start:], digest(root)) == ([], before)
    assert "choices: " in run(recipe, "--retry-failed", "dns,size", code=2)

    assert "retry: 1 rows in 1 shards are asked again (http_429 1)" in run(recipe, "--retry-failed", "http_429")
    assert flaky.pictures(start) == ["/12.jpg"]
    assert [path.stat().st_mtime_ns == at for path, at in sorted(tars.items())] == [True, True, False]

    start = len(flaky.hits)
    assert "(http_503 4)" in run(recipe, "--retry-failed", "transient")
    assert flaky.pictures(start) == ["/0.jpg", "/3.jpg", "/6.jpg", "/9.jpg"]
    assert "nothing to do" in run(recipe)

    rows = ledger(root)
    assert len(rows) == 15 + 5
    assert sum(bool(row["last"]) for row in rows) == 15
    twice = [
        (row["attempt"], row["http_status"], row["reason"], row["last"]) for row in rows if row["uid"] == rows[0]["uid"]
    ]
    assert twice == [(1, 503, "http_503", False), (2, 200, None, True)]
    assert Manifest.read(root / "manifests" / "filter.json").dropped == {"http_404": 1}

    fresh = prepare(tmp_path / "b", flaky)  # a web that answered so at once
    run(fresh)
    assert digest(tmp_path / "b" / "run") == digest(root)
    for path in sorted((root / "pairs").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / "run" / "pairs" / path.name).read_bytes()
    logged = [
        json.loads(line)
        for path in sorted((root / "logs" / "fetch").iterdir())
        for line in path.read_text().splitlines()
    ]
    assert sorted(entry["reason"] for entry in logged) == [
        "http_404",
        "http_429",
        "http_503",
        "http_503",
        "http_503",
        "http_503",
    ]


@pytest.mark.slow
def test_a_retry_that_fails_again_and_one_that_is_killed(tmp_path: Path, flaky: Flaky) -> None:
    recipe = prepare(tmp_path, flaky)
    root = tmp_path / "run"
    run(recipe)
    before = digest(root)
    run(recipe, "--retry-failed", "http_503")
    assert digest(root) == before
    assert sorted(row["attempt"] for row in ledger(root) if row["reason"] == "http_503") == [1, 1, 1, 1, 2, 2, 2, 2]

    flaky.broken, flaky.slow, start = False, 0.3, len(flaky.hits)
    journal = root / "manifests" / "journal" / "fetch"
    line = ("run", "--stage", "filter", "--recipe", recipe, "--workers", 1, "--retry-failed", "http_503")
    one_by_one = ("--set", "fetch.concurrency=1")
    assert kill_when(lambda: any(journal.glob("0*.json")), *line, *one_by_one)
    flaky.slow = 0.0
    run(recipe)  # goes on without being told again
    assert set(flaky.pictures(start)) == {"/0.jpg", "/3.jpg", "/6.jpg", "/9.jpg"}
    assert Manifest.read(root / "manifests" / "filter.json").dropped == {"http_404": 1, "http_429": 1}
    assert {row["attempt"] for row in ledger(root) if row["last"] and row["http_status"] == 200} == {1, 3}


def test_a_retry_obeys_a_list_of_hashes_that_was_added_after_the_failure(tmp_path: Path, flaky: Flaky) -> None:
    """Of what the list names one picture failed before, one is stored: nothing is left of either, and others that
    failed come."""
    recipe, root = prepare(tmp_path, flaky), tmp_path / "run"
    run_filter(recipe, root)
    named = [hashlib.md5(jpeg(picture(number))).hexdigest() for number in (0, 1)]
    (tmp_path / "md5.txt").write_text("md5\n" + "".join(f"{value}\n" for value in named))
    assert holding(root, [], ["http://flaky.test/0.jpg", "http://flaky.test/1.jpg"]) != set()
    flaky.broken, start = False, len(flaky.hits)
    listed = load_recipe(recipe, [f'filter.exclude=["{tmp_path}/md5.txt"]'])
    with without_beam():
        manifest = run_stage(listed, "filter", StageOptions(retry=("http_503",))).manifest
    assert flaky.pictures(start) == ["/0.jpg", "/3.jpg", "/6.jpg", "/9.jpg"]
    assert manifest.dropped == {"http_404": 1, "http_429": 1, "removed": 2}
    assert manifest.facts["removed_by_list"] == {"md5.txt": 2}
    assert holding(root, [], ["http://flaky.test/0.jpg", "http://flaky.test/1.jpg"]) == set()
    start = len(flaky.hits)
    assert run_filter(recipe, root, f'filter.exclude=["{tmp_path}/md5.txt"]').digest == manifest.digest
    assert flaky.hits[start:] == []


def done(root: Path, name: str, reason: str) -> None:
    """Put down a shard whose one row was dropped for this reason."""
    path = root / "ledger" / "fetch" / f"{name}.parquet"
    row = {"uid": uid(0), "attempt": 1, "last": True, "http_status": 0, "reason": reason}
    write_table(path, pa.Table.from_pylist([row], schema=ATTEMPTS))
    record = ShardRecord(name, "key", (FileRecord.of(root, path),), 1, 0, dropped={reason: 1})
    Journal(root, "fetch").record(record)


def test_what_an_earlier_version_dropped_for_no_reason_is_asked_again(tmp_path: Path) -> None:
    """The first shard's row is asked again until it has a reason; the second stays as it was planned."""
    done(tmp_path, "00000", "http_0")
    done(tmp_path, "00001", "http_404")
    units = [Unit(name, {"made_by": "x"}, "content") for name in ("00000", "00001")]
    step: Any = SimpleNamespace(
        root=tmp_path, runtime=Runtime(), journal=Journal(tmp_path, "fetch"), key_of=lambda unit: f"not {unit.content}"
    )
    first, second = with_retries(step, units)
    assert (first.reads["again"], first.content != "content", second) == (["http_0"], True, units[1])
    assert with_retries(step, units) == [first, second]  # killed, and planned again
    done(tmp_path, "00000", "bad_response")
    assert with_retries(step, units) == [first, second]  # its key stays: it is done
