"""Removed rows are in no file of a run but the final ledger's uid and the tombstones; nothing else changes, and they
never come back."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from filters.exclude import normal_urls
from manifests.files import read_json
from manifests.manifest import Manifest
from manifests.shards import read_shard
from manifests.tombstones import TOMBSTONES, read_tombstones, value_digest
from manifests.transaction import ASKED
from manifests.uid import uid_of
from manifests.verify import verify_run
from pipeline.cli import app
from pipeline.cli.remove import _fault, _names
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime
from pipeline.maintenance.repair.run import STAGE_STEPS, RepairOptions, repair_run
from pipeline.maintenance.verify_removed import with_absence
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.stages.run import StageOptions, run_stage
from pipeline.steps.fetch.step import Fetch
from tests.support.keep_runs import differing, mend, without_beam
from tests.support.removals import URL, command, contents, holding, interrupted, remove, whole
from tests.support.small_web import SIDE, jpeg, picture, write_input, write_recipe

LINES = """
[input]
dataset = "jsonl"
files = "{folder}/in/*.jsonl"
[output]
root = "{folder}/run"
[filter]
rules = [{{ use = "text", min_words = 2 }}]
[tier.pretrain]
size = 64
rules = [{{ use = "size", min_side = 64 }}]
"""


def rerun(root, *stages, recipe=None):
    with without_beam():
        return [run_stage(recipe or recipe_of_run(root), stage, StageOptions()) for stage in stages or STAGE_STEPS]


def uid(number, text="picture number {}"):
    return uid_of(URL.format(number), text.format(number))


def final(root):
    return pa.concat_tables(pq.read_table(path) for path in sorted((root / "ledger" / "final").glob("*.parquet")))


def fate(root, name):
    rows = final(root).filter(pc.equal(final(root)["uid"], pa.scalar(name, pa.binary(16)))).to_pylist()
    return [(row["fate"], row["reason"]) for row in rows]


def digests(root):
    return {stage: Manifest.read(root / "manifests" / f"{stage}.json").digest for stage in STAGE_STEPS}


def test_a_url_is_gone_from_every_file(run, made):
    gone = uid(5)
    assert len(holding(run, [gone], [URL.format(5)])) > 8
    before = digests(run)
    done = remove(run, url=URL.format(5))
    assert (done.rows, done.uids) == (1, 1)
    left = holding(run, [gone], [URL.format(5)])
    assert {re.sub(r"\d+", "N", name) for name in left} == {"ledger/final/N.parquet", "tombstones.parquet"}
    assert holding(run, [], [URL.format(5)]) == set()
    assert whole(run) == []
    assert fate(run, gone) == [("dropped", "removed")]
    row = next(row for row in final(run).to_pylist() if row["uid"] == gone)
    assert {name for name, value in row.items() if value not in (None, [])} == {
        "source",
        "source_row",
        "uid",
        "fate",
        "reason",
        "step",
    }
    after = digests(run)
    for stage, digest in before.items():
        manifest = Manifest.read(run / "manifests" / f"{stage}.json")
        assert manifest.digest != digest
        assert manifest.parent == digest
        assert manifest.recipe_digest == Manifest.read(made / "manifests" / f"{stage}.json").recipe_digest
    rerun(run)
    assert digests(run) == after
    assert whole(run) == []


def stats(root):
    return {name: (root / name).stat() for name in contents(root)}


def test_only_files_that_hold_the_rows_are_written(run):
    before, old = stats(run), contents(run)
    holds = holding(run, [uid(5)], [URL.format(5)])
    assert "pairs/00000.tar" in holds
    remove(run, url=URL.format(5))
    now = contents(run)
    for name in old:
        if name in now and now[name] == old[name]:
            assert (run / name).stat().st_mtime_ns == before[name].st_mtime_ns, name
            assert (run / name).stat().st_ino == before[name].st_ino, name
    data = {name for name in old if now.get(name) != old[name] and not name.startswith("manifests/")}
    said = {"pairs/00000_stats.json", "dedup/top_hashes.json", "ledger/marks.parquet", "ledger/eval_matches.parquet"}
    assert data - said <= holds
    assert {"pairs/00001.tar", "pairs/00002.parquet", "scores/00001.parquet", "ledger/select/00001.parquet"} <= set(
        old
    ) - data
    assert (
        len([name for name in data if name.startswith("codes/pretrain/")]) == 2
    )  # one of the two shards, with its index


def test_a_rerun_makes_no_shard_again(run, web):
    remove(run, url=[URL.format(5), URL.format(6)], uid=uid(9).hex())
    before, hits = stats(run), len(web.hits)
    assert [finished.made for finished in rerun(run)] == [0] * len(STAGE_STEPS)
    assert len(web.hits) == hits
    data = [name for name in before if not name.startswith("manifests/") and name != "recipe.toml"]
    assert all((run / name).stat().st_mtime_ns == before[name].st_mtime_ns for name in data)
    assert whole(run) == []


def test_rows_in_are_kept_and_dropped_everywhere(run):
    remove(run, host="pictures.test")
    for stage in STAGE_STEPS:
        manifest = Manifest.read(run / "manifests" / f"{stage}.json")
        assert manifest.rows_in == manifest.kept + sum(manifest.dropped.values())
    manifest = Manifest.read(run / "manifests" / "filter.json")
    assert (manifest.rows_in, manifest.kept) == (52, 0)
    assert manifest.dropped == {"removed": 39, "broken_row_group": 10, "bad_url": 2, "blocked_scheme": 1}
    assert sum(json.loads(path.read_text())["count"] for path in (run / "pairs").glob("*_stats.json")) == 1
    assert [key for path in (run / "codes").glob("*/*.tar") for key, _ in read_shard(path)] == []
    assert {re.sub(r"\d+", "N", name) for name in holding(run, [], ["pictures.test/"])} == set()
    assert whole(run) == []
    after = digests(run)
    rerun(run)
    assert digests(run) == after
    assert whole(run) == []


def picture_of(root, name):
    table = pa.concat_tables(pq.read_table(path) for path in sorted((root / "scores").glob("*.parquet")))
    return table.filter(pc.equal(table["uid"], pa.scalar(name, pa.binary(16)))).to_pylist()[0]


@pytest.mark.parametrize("kind", ["url", "host", "uid", "sha256", "phash", "list"])
def test_every_kind_of_selector(run, tmp_path, kind):
    gone = uid(7)
    found = picture_of(run, gone)
    values = {"url": "HTTPS://PICTURES.test:443/7.jpg#top", "host": "Pictures.TEST", "uid": gone.hex().upper()}
    values |= {"sha256": found["sha256"].hex(), "phash": f"{found['phash']:016x}"}
    if kind == "list":
        (tmp_path / "gone.csv").write_text(f"url,why\n{URL.format(7)},asked\n{URL.format(8)},asked\n")
        done = remove(run, lists=[tmp_path / "gone.csv"])
    else:
        done = remove(run, **{kind: values[kind]})
    assert done.rows == {"host": 39, "list": 2}.get(kind, 1)
    assert fate(run, gone) == [("dropped", "removed")]
    left = holding(run, [gone], [URL.format(7)])
    assert {re.sub(r"\d+", "N", name) for name in left} == {"ledger/final/N.parquet", "tombstones.parquet"}
    table = read_tombstones(run).table
    row = next(row for row in table.to_pylist() if row["uid"] == gone)
    assert (row["kind"], row["phash"]) == ("url" if kind == "list" else kind, found["phash"])
    canonical = {"url": normal_urls(pa.array([URL.format(7)]))[0].as_py(), "host": "pictures.test", "uid": gone.hex()}
    canonical |= {"sha256": values["sha256"], "phash": values["phash"]}
    assert row["value_sha256"] == value_digest(canonical["url" if kind == "list" else kind])
    assert whole(run) == []
    before = contents(run)
    again = remove(run, lists=[tmp_path / "gone.csv"]) if kind == "list" else remove(run, **{kind: values[kind]})
    assert (again.record, len(again.known)) == ("", len(again.found))
    assert contents(run) == before


def test_rows_of_one_uid_go_together(run):
    done = remove(run, url=URL.format(0))
    assert (done.rows, done.uids) == (2, 1)
    assert fate(run, uid(0)) == [("dropped", "removed")] * 2
    assert holding(run, [uid(0)], [URL.format(0)]) <= {
        "tombstones.parquet",
        *(f"ledger/final/0000{n}.parquet" for n in range(9)),
    }


def test_rows_that_were_dropped_are_removed_too(run):
    done = remove(run, url="http://pictures.test/30.jpg")  # dropped at select, for its size
    assert done.rows == 1
    assert fate(run, uid_of("http://pictures.test/30.jpg", "claims to be small")) == [("dropped", "removed")]
    assert holding(run, [], ["http://pictures.test/30.jpg"]) == set()
    assert whole(run) == []


TWIN = uid_of("http://pictures.test/twin.jpg", "picture number three again")


def test_a_ghost_keeps_its_twins_out(run):
    assert fate(run, TWIN) == [("dropped", "near_duplicate")]
    assert fate(run, uid(3)) == [("kept", None)]
    remove(run, url=URL.format(3))
    assert fate(run, TWIN) == [("dropped", "near_duplicate")]
    rerun(run, "filter", recipe=recipe_of_run(run, sets=["dedup.radius=8", "tier.pretrain.rules.aspect.max=3.0"]))
    assert fate(run, TWIN) == [("dropped", "near_duplicate")]
    assert fate(run, uid(3)) == [("dropped", "removed")]
    assert fate(run, uid(4)) == [("kept", None)]


def test_a_ghost_that_had_not_won_keeps_nobody_out(run):
    remove(run, uid=TWIN.hex())
    assert fate(run, uid(3)) == [("kept", None)]
    rerun(run, "filter", recipe=recipe_of_run(run, sets=["dedup.radius=8"]))
    assert fate(run, uid(3)) == [("kept", None)]


@pytest.mark.parametrize("late", [False, True])
def test_a_twin_is_promoted_when_asked_for(run, late):
    if late:
        remove(run, url=URL.format(3))
        assert fate(run, TWIN) == [("dropped", "near_duplicate")]
    done = remove(run, promote=True, url=URL.format(3))
    assert fate(run, TWIN) == [("kept", None)]
    assert any(what.startswith("encode pretrain-") for what in done.later)
    assert whole(run) == []
    rerun(run, "caption", "pretokenize")
    assert TWIN.hex() in {key for path in (run / "codes" / "pretrain").glob("*.tar") for key, _ in read_shard(path)}
    assert fate(run, uid(3)) == [("dropped", "removed")]
    assert whole(run) == []
    assert remove(run, promote=True, url=URL.format(3)).record == ""


def test_later_input_obeys(run, tmp_path, made, web):
    hashes = {n: picture_of(run, uid(n)) for n in (10, 11)}
    remove(
        run, url=URL.format(5), host="gone.test", sha256=hashes[10]["sha256"].hex(), phash=f"{hashes[11]['phash']:016x}"
    )
    remove(run, uid=uid(6).hex())
    shutil.copytree(made.parent / "in", tmp_path / "in")
    rows = [
        ("https://pictures.test/5.jpg", "the same picture in other words"),
        ("http://cdn.gone.test/1.jpg", "a host below the removed one"),
        ("http://mirror.test/10.jpg", "the same bytes from elsewhere"),
        ("http://mirror.test/11.jpg", "the same hash from elsewhere"),
        (URL.format(6), "picture number 6"),
        ("http://mirror.test/35.jpg", "a picture that may stay"),
        ("http://mirror.test/5.jpg", "the picture of a removed URL"),
    ]
    columns = {
        "URL": [u for u, _ in rows],
        "TEXT": [t for _, t in rows],
        "WIDTH": [float(SIDE)] * 7,
        "HEIGHT": [float(SIDE)] * 7,
    }
    pq.write_table(pa.table(columns), tmp_path / "in" / "d.parquet")
    hosts = f'fetch.connect_to={{"pictures.test" = "{web}", "mirror.test" = "{web}"}}'
    recipe = recipe_of_run(run, sets=[f"input.files={tmp_path}/in/*.parquet", hosts])
    rerun(run, "filter", recipe=recipe)
    found = final(run).filter(pc.equal(final(run)["source"], "d.parquet")).to_pylist()
    assert [row["reason"] for row in found] == [
        "removed",
        "removed",
        "removed",
        "removed",
        "removed",
        None,
        "near_duplicate",
    ]
    assert [row["step"] for row in found[:4]] == ["select", "select", "fetch", "dedup"]
    says = {name for row in found[:4] for name, value in row.items() if value not in (None, [])}
    assert says == {"source", "source_row", "uid", "fate", "reason", "step", "mark"}
    tens = [uid_of(url, text) for url, text in rows[2:4]]
    stored = {key for path in (run / "pairs").glob("*.tar") for key, _ in read_shard(path)}
    assert [one.hex() in stored for one in tens] == [False, True]
    fetched = pa.concat_tables(pq.read_table(path) for path in (run / "pairs").glob("*.parquet"))
    assert hashes[10]["sha256"].hex() not in fetched["sha256"].to_pylist()
    assert fate(run, uid(5)) == [("dropped", "removed")]
    assert {finding.path for finding in whole(run)} == {
        "manifests/caption.json",
        "manifests/pretokenize.json",
    }  # of the filter before
    assert _returned(run) == 1
    assert remove(run, phash=f"{hashes[11]['phash']:016x}").rows == 1
    assert _returned(run) == 0
    assert holding(run, tens[1:], [rows[3][0]]) == {"ledger/final/00006.parquet", TOMBSTONES}


def _returned(root):
    lines = [
        line for line in with_absence(root, verify_run(root, STAGE_STEPS)).said if "have a removed picture" in line
    ]
    return int(lines[0].split()[0]) if lines else 0


def test_nothing_found_leaves_a_tombstone(run):
    before = digests(run)
    done = remove(run, url="http://elsewhere.test/1.jpg", host="elsewhere.test")
    assert (done.rows, set(done.found.values())) == (0, {0})
    assert digests(run) == before
    assert read_tombstones(run).table["uid"].null_count == 2
    assert whole(run) == []
    rerun(run)
    assert digests(run) == before


def test_what_was_removed_is_repaired_as_it_is(run):
    remove(run, url=[URL.format(5), URL.format(3)])
    before = contents(run)
    names = ["ledger/select/00000.parquet", "ledger/final/00000.parquet", "dedup/00000.parquet", "scores/00000.parquet"]
    names += ["pairs/00000.parquet", "pairs/00000_stats.json", "ledger/fetch/00000.parquet", "codes/pretrain/00000.tar"]
    names += ["codes/encoded/pretrain-00000.parquet", "captions/llava-00000.parquet", "manifests/filter.json"]
    names += ["manifests/plan/fetch/00000.parquet", "manifests/plan/pack/pretrain-00000.parquet"]
    for some in (names, ["manifests/journal/score/00000.json"]):
        for name in some:
            (run / name).write_bytes(b"")
        with without_beam():
            _, work = repair_run(run, recipe_of_run(run), Runtime(), RepairOptions())
        assert work.left == {}
        assert contents(run) == before
    (run / TOMBSTONES).write_bytes(b"PAR1")
    assert [(finding.path, finding.kind) for finding in whole(run)] == [(TOMBSTONES, "damaged")]


def test_verify_finds_what_should_be_gone(run, made):
    remove(run, url=URL.format(5))
    shutil.copy(made / "pairs" / "00000.tar", run / "pairs" / "00000.tar")
    shutil.copy(made / "scores" / "00000.parquet", run / "scores" / "00000.parquet")
    (run / "logs" / "fetch").mkdir(parents=True, exist_ok=True)
    (run / "logs" / "fetch" / "x.jsonl").write_text(json.dumps({"uid": uid(5).hex()}) + "\n")
    found = {finding.path: finding.says for finding in whole(run) if finding.kind == "removed"}
    assert set(found) == {"pairs/00000.tar", "scores/00000.parquet", "logs/fetch/x.jsonl"}
    assert f"member {uid(5).hex()}.jpg" in found["pairs/00000.tar"]


def test_leftovers_and_logs_are_scrubbed(run):
    (run / ".earlier" / "score").mkdir(parents=True)
    os.link(run / "scores" / "00000.parquet", run / ".earlier" / "score" / "abc-scores.parquet")
    (run / "logs" / "fetch").mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"uid": uid(n).hex(), "detail": "?"}) + "\n" for n in (4, 5)] + [f"asked {URL.format(5)}\n"]
    (run / "logs" / "fetch" / "00000.jsonl").write_text("".join(lines))
    (run / "report.html").write_text("<img>")
    remove(run, url=URL.format(5))
    assert (run / "logs" / "fetch" / "00000.jsonl").read_text() == lines[0]
    assert not (run / "report.html").exists()
    assert {re.sub(r"\d+", "N", name) for name in holding(run, [uid(5)], [URL.format(5)])} == {
        "ledger/final/N.parquet",
        "tombstones.parquet",
    }
    assert pq.read_table(run / ".earlier" / "score" / "abc-scores.parquet").num_rows == 7


@pytest.mark.parametrize("moment", [0, 3, 30, 45, 60])
def test_a_kill_loses_nothing_and_the_same_command_finishes(run, tmp_path, monkeypatch, moment):
    shutil.copytree(run, tmp_path / "twin")
    remove(tmp_path / "twin", url=[URL.format(5), URL.format(3)])
    wanted, before = contents(tmp_path / "twin"), contents(run)
    interrupted(run, monkeypatch, moment)
    if (run / ".removal" / "removal.json").exists():
        assert ".removal/removal.json" in {finding.path for finding in whole(run)}
    else:
        assert {name: data for name, data in contents(run).items() if not name.startswith(".")} == before
    remove(run, url=[URL.format(5), URL.format(3)])
    assert contents(run) == wanted
    assert not (run / ".removal").exists()
    assert whole(run) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", [2, 40])
def test_kill_9_and_the_next_run_finishes(run, tmp_path, moment):
    shutil.copytree(run, tmp_path / "twin")
    remove(tmp_path / "twin", url=URL.format(5))
    code = f"""
import os, signal, sys
import manifests.transaction
real, calls = os.replace, [0]
def stop(source, target):
    calls[0] += 1
    if ".removal/new" in str(source) or ".removal/new" in str(target):
        calls.append(1)
        len(calls) > {moment} and os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
manifests.transaction.os.replace = stop
from pipeline.cli import main
sys.argv = ["pipeline", "remove", {str(run)!r}, "--url", {URL.format(5)!r}]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ASKED in {finding.path for finding in whole(run)}
    if (run / ".removal" / "removal.json").exists():  # all new files are whole: whoever comes next moves them
        rerun(run)
    # the run is the old one, whole: no other work until the removal is at its end, and it needs no reminding of what
    # was asked
    else:
        assert len(holding(run, [uid(5)], [])) > 8
        with pytest.raises(
            RecipeError, match="a removal was asked for here and is not at its end; first: pipeline remove"
        ):
            rerun(run)
        assert command(run).exit_code == 0
    assert contents(run)["manifests/filter.json"] == contents(tmp_path / "twin")["manifests/filter.json"]
    assert {n for n, d in contents(run).items() if contents(tmp_path / "twin").get(n) != d} <= {
        "manifests/input.json",
        "manifests/recipe.json",
        "recipe.toml",
    }  # they say where the run is
    assert whole(run) == []


def test_the_command_prints_the_difference(run):
    before = digests(run)
    done = command(run, "--url", URL.format(5), "--host", "nobody.test")
    assert done.exit_code == 0, done.output
    assert "  url      pictures.test/5.jpg: 1 uids\n" in done.output
    assert "  host     nobody.test: no row here; a tombstone keeps it out of later input\n" in done.output
    for stage, digest in before.items():
        assert f"  {stage}: digest {digest[:16]}… -> {digests(run)[stage][:16]}…" in done.output
    record = read_json(run / "manifests" / "removals" / "0001.json")
    assert record["stages"] == {stage: {"before": before[stage], "after": digests(run)[stage]} for stage in before}
    assert record["taken_out"]["pairs/*.tar"] == 1
    assert (record["rows"], record["uids"]) == (1, 1)
    again = command(run, "--url", URL.format(5))
    assert (again.exit_code, "already removed, nothing to do" in again.output) == (0, True)
    verified = CliRunner().invoke(app, ["verify", str(run)])
    assert verified.exit_code == 0, verified.output
    assert "removed: 1 uids" in verified.output


def test_wrong_uses_end_with_2(run, tmp_path):
    before = contents(run)
    (tmp_path / "empty.txt").write_text("# nobody yet\n")
    for args in (
        [run],
        [run, "--uid", "abc"],
        [run, "--url", "nonsense"],
        [run, "--host", "http://pictures.test/"],
        [run, "--url", URL.format(5), "--list", tmp_path / "empty.txt"],
        [run, "--phash", "0xff"],
        [tmp_path / "nowhere", "--uid", "a" * 32],
        [run, "--list", "nowhere.txt"],
    ):
        done = command(*args)
        assert done.exit_code == 2, args
        assert "error: " in done.output
    with open(run / ".lock", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = command(run, "--uid", "a" * 32)
    assert (done.exit_code, "held by another run" in done.output) == (2, True)
    assert contents(run) == before


def test_a_damaged_run_is_left_alone(run):
    (run / "pairs" / "00000.tar").write_bytes(b"x" * 1024)
    before = contents(run)
    done = command(run, "--url", URL.format(5))
    assert (done.exit_code, "pipeline repair mends it" in done.output) == (1, True), done.output
    assert contents(run) == before


def test_links_are_followed_or_refused(run, tmp_path):
    other = tmp_path / "big"
    shutil.move(run / "pairs", other)
    (run / "pairs").symlink_to("../big")
    shutil.move(other / "00001.tar", tmp_path / "one.tar")
    (other / "00001.tar").symlink_to(tmp_path / "one.tar")
    done = command(run, "--url", URL.format(5))
    assert (done.exit_code, f"is a link to {tmp_path / 'one.tar'}: the old bytes would stay there" in done.output) == (
        2,
        True,
    ), done.output
    os.replace(tmp_path / "one.tar", other / "00001.tar")
    done = command(run, "--url", URL.format(5))
    assert (done.exit_code, (run / "pairs").is_symlink()) == (0, True), done.output
    assert not [path for path in other.glob("*.tar") if uid(5).hex().encode() in path.read_bytes()]


@pytest.mark.skipif(
    not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat("/tmp").st_dev, reason="wants two disks"
)
def test_a_folder_of_another_disk_is_refused(run):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        shutil.move(run / "pairs", other)
        (run / "pairs").symlink_to(Path(other, "pairs"))
        done = command(run, "--url", URL.format(5))
    assert (done.exit_code, f"is a link to {other}" in done.output) == (2, True), done.output


def test_faults_that_no_repair_mends_are_said_to_be_none(run):
    (run / "pairs" / "mine.tar").write_bytes(b"no tar" * 500)
    done = command(run, "--url", URL.format(5))
    assert (done.exit_code, "move it away" in done.output, "pipeline repair" in done.output) == (1, True, False), (
        done.output
    )
    assert ".tmp-" not in done.output
    assert "mend that" in _fault(OSError(errno.EFBIG, "File too large"))


def test_whole_names_are_looked_for_in_the_recipe():
    text = "http://img.pictures.test:80/5.jpg"
    assert _names(text, "host", "pictures.test")
    assert _names(text, "url", "img.pictures.test:80/5.jpg")
    for kind, value in (("host", "tures.test"), ("host", "img.pictures"), ("url", "img.pictures.test:80/5")):
        assert not _names(text, kind, value)
    assert not _names("127.0.1.1", "host", "1.1")


TOMBSTONES_BEFORE = "http://pictures.test/9.jpg"


NEEDED = (
    "manifests/journal/score/00000.json",  # without it the scores would keep the row
    "tombstones.parquet",  # without them what was removed before would come back
    "manifests/plan/fetch/00000.parquet",
    "codes/pretrain/00000.index.json",
)


def test_nothing_is_removed_from_a_run_that_lacks_a_file(run):
    remove(run, url=TOMBSTONES_BEFORE)
    for name in NEEDED:
        data = (run / name).read_bytes()
        (run / name).unlink()
        before = contents(run)
        done = command(run, "--url", URL.format(5))
        assert (done.exit_code, f"{name} is missing" in done.output) == (1, True), done.output
        assert contents(run) == before
        (run / name).write_bytes(data)


def test_no_run_goes_on_without_what_its_removals_left(run):
    remove(run, url=URL.format(5))
    remove(run, url=URL.format(6))
    kept = run.parent / "kept"
    shutil.copytree(run, kept)
    record, journal = "manifests/removals/0001.json", "manifests/journal/remove/tombstones.json"
    for lost, says in (
        ([TOMBSTONES], "what was removed would come back"),
        ([TOMBSTONES, journal], "what was removed would come back"),
        ([record], "missing or damaged, and lineage would break off"),
        ([record, "manifests/journal/remove/0001.json"], "missing or damaged, and lineage would break off"),
    ):
        for name in lost:
            (run / name).unlink()
        assert set(lost[:1]) <= {finding.path for finding in verify_run(run, STAGE_STEPS).wrong}
        with pytest.raises(RecipeError, match=says):
            rerun(run, "filter", recipe=recipe_of_run(run, sets=["filter.rules.text.min_words=1"]))
        assert "restore it from a copy of the run" in mend(run).left[lost[0]]
        for name in lost:
            shutil.copyfile(kept / name, run / name)
    (run / TOMBSTONES).write_bytes((run / TOMBSTONES).read_bytes()[:-9])
    with pytest.raises(RecipeError, match="damaged, and what was removed might come back"):
        rerun(run, "filter")


def test_the_journal_of_removals_comes_back_from_what_it_names(run):
    remove(run, url=URL.format(5))
    kept = run.parent / "kept"
    shutil.copytree(run, kept)
    for name in ("tombstones", "0001"):
        (run / f"manifests/journal/remove/{name}.json").unlink()
    (run / "pairs" / "00000.tar").write_bytes(b"")
    assert {finding.path for finding in verify_run(run, STAGE_STEPS).wrong} == set(differing(run, kept))
    assert (mend(run).left, differing(run, kept)) == ({}, [])
    (run / "manifests/journal/remove/0001.json").write_text("{")
    assert (mend(run).left, differing(run, kept)) == ({}, [])


def test_damage_does_not_pass_for_whole(run):
    path = run / "captions" / "llava-00000.parquet"
    data = path.read_bytes().replace(b'"tessera_format"', b'"tessera_formaT"', 1)
    data = data if data != path.read_bytes() else data.replace(b"ARROW:schema", b"ARROW:scheme", 1)
    assert data != path.read_bytes()
    path.write_bytes(data)
    before = contents(run)
    done = command(run, "--url", URL.format(5))
    assert (done.exit_code, "it has not the sha256 that its journal names" in done.output) == (1, True), done.output
    assert contents(run) == before


def test_a_removal_that_was_killed_is_not_forgotten_for_another(run, tmp_path, monkeypatch):
    shutil.copytree(run, tmp_path / "twin")
    for n in (5, 3):
        remove(tmp_path / "twin", url=URL.format(n))
    monkeypatch.setattr("pipeline.maintenance.remove.run.commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        remove(run, url=URL.format(5))
    monkeypatch.undo()
    done = command(run, "--url", URL.format(3))
    assert (done.exit_code, "first ended a removal that was interrupted: 1 rows" in done.output) == (0, True), (
        done.output
    )
    assert contents(run) == contents(tmp_path / "twin")


def test_one_after_the_other_is_both_at_once(run, tmp_path):
    shutil.copytree(run, tmp_path / "twin")
    for n in (5, 3):
        remove(run, url=URL.format(n))
    remove(tmp_path / "twin", url=[URL.format(3), URL.format(5)])
    other = {name for name, data in contents(run).items() if contents(tmp_path / "twin").get(name) != data}
    assert {re.sub(r"\d+", "N", name) for name in other} == {
        *(f"manifests/{stage}.json" for stage in STAGE_STEPS),
        "manifests/digests.json",
        "manifests/removals/N.json",
        "manifests/journal/remove/N.json",
    }


def test_what_dead_attempts_left_is_searched_too(run):
    shutil.copy(run / "scores" / "00000.parquet", run / "scores" / "00077.parquet")
    shutil.copy(run / "pairs" / "00000.tar", run / "pairs" / "00077.tar")
    remove(run, url=URL.format(5))
    assert holding(run, [uid(5)], [URL.format(5)]) == {"ledger/final/00000.parquet", TOMBSTONES}
    (run / "pairs" / "00077.tar").write_bytes(b"x" * 1024)
    done = command(run, "--url", URL.format(6))
    assert (done.exit_code, "00077.tar: no record names it" in done.output) == (1, True), done.output


def test_lines_that_name_a_removed_host_go_too(run):
    (run / "logs" / "workers").mkdir(parents=True, exist_ok=True)
    lines = ["cdn.pictures.test: resting\n", "pictures.test.example: resting\n", "notpictures.test: resting\n"]
    (run / "logs" / "workers" / "fetch-0.log").write_text("".join(lines))
    done = command(run, "--host", "pictures.test")
    assert (run / "logs" / "workers" / "fetch-0.log").read_text() == "".join(lines[1:])
    assert "note: recipe.toml names pictures.test: the recipe is yours and stays as it is" in done.output
    report = with_absence(run, verify_run(run, STAGE_STEPS))
    assert [finding for finding in report.findings if finding.wrong] == []
    assert "recipe.toml names a removed URL or host: it is yours, and stays as it is" in report.said


TEXTS = {
    "logs/a.log": ("asked https://PICTURES.test:443/5.jpg, in vain", "1 URLs"),
    "logs/b.jsonl": ('{"u": "http:\\/\\/pictures.test\\/5.jpg"}', "1 URLs"),
    "report.html": ("<img src='http://gone.test/x.jpg'>", "1 URLs"),
    "logs/c.log": ("cdn.gone.test rests", "1 hosts"),
    "logs/d.log": ("http://pictures.test/55.jpg and notgone.test are others", ""),
    "plan.json": ("{}", ""),
}


def test_verify_reads_texts_too(run):
    remove(run, url=URL.format(5), host="gone.test")
    (run / "logs").mkdir(exist_ok=True)
    for name, (text, _) in TEXTS.items():
        (run / name).write_text(text)
    found = {finding.path: finding.says for finding in whole(run)}
    assert found == {name: f"holds {says}, which was removed" for name, (_, says) in TEXTS.items() if says}


def test_why_tells_of_removed_urls_and_of_their_twins(run):
    remove(run, url=URL.format(3))
    ask = [
        CliRunner().invoke(app, ["why", "--out", str(run), "--recipe", str(run / "recipe.toml"), x])
        for x in (URL.format(3), TWIN.hex())
    ]
    assert (ask[0].exit_code, f"'{URL.format(3)}' was removed" in ask[0].output) == (1, True), ask[0].output
    assert (
        "mark      near_duplicate: its twin was kept and then removed; pipeline remove --promote-duplicates"
        in ask[1].output
    )


def test_a_run_that_is_not_at_its_end(tmp_path, web, capsys):
    recipe = write_recipe(tmp_path / "recipe.toml", web, write_input(tmp_path / "in"), tmp_path / "run")
    root = tmp_path / "run"
    with without_beam():
        run_stage(load_recipe(recipe), "filter", StageOptions(steps=("select", "fetch", "score")))
    remove(root, url=URL.format(5))
    assert holding(root, [uid(5)], [URL.format(5)]) == {TOMBSTONES}
    hits = len(web.hits)
    rerun(root, "filter")
    assert len(web.hits) == hits
    assert fate(root, uid(5)) == [("dropped", "removed")]
    assert whole(root) == []
    before = digests_of_filter(root)
    remove(root, uid=uid(6).hex())
    remove(root, uid=uid(7).hex())
    records = [
        read_json(path)["stages"]["filter"] for path in sorted((root / "manifests" / "removals").glob("*.json"))[1:]
    ]
    assert [entry["before"] for entry in records] == [before, records[0]["after"]]
    assert Manifest.read(root / "manifests" / "filter.json").parent == records[0]["after"]


def test_a_plan_of_which_nothing_was_done_yet_is_cut_too(tmp_path, web):
    recipe = load_recipe(write_recipe(tmp_path / "recipe.toml", web, write_input(tmp_path / "in"), tmp_path / "run"))
    with without_beam():
        run_stage(recipe, "filter", StageOptions(steps=("select",)))
    Fetch(recipe, tmp_path / "run").units()
    remove(tmp_path / "run", url=URL.format(5))
    assert holding(tmp_path / "run", [uid(5)], [URL.format(5)]) == {TOMBSTONES}
    assert whole(tmp_path / "run") == []


def digests_of_filter(root):
    return Manifest.read(root / "manifests" / "filter.json").digest


@pytest.mark.slow
def test_features_of_removed_rows_go_too(run, tiny_t5):
    recipe = recipe_of_run(run, sets=['pretokenize.t5="precomputed"', f'pretokenize.t5_weights="{tiny_t5}"'])
    rerun(run, "pretokenize", recipe=recipe)
    before = {key: sample for path in (run / "codes" / "pretrain").glob("*.tar") for key, sample in read_shard(path)}
    assert remove(run, url=URL.format(5)).counts["codes/t5/*.parquet"] == 2
    after = {key: sample for path in (run / "codes" / "pretrain").glob("*.tar") for key, sample in read_shard(path)}
    assert after == {key: sample for key, sample in before.items() if key != uid(5).hex()}
    assert whole(run) == []
    made = digests(run)
    rerun(run, "pretokenize")
    assert digests(run) == made
    held = contents(run)
    for name in ("codes/t5/pretrain-00000.parquet", "codes/pretrain/00000.tar", "codes/pretrain/00001.index.json"):
        (run / name).write_bytes(b"")
    with without_beam():
        assert repair_run(run, recipe_of_run(run), Runtime(), RepairOptions())[1].left == {}
    assert contents(run) == held


def test_tables_made_of_lines_are_blanked(tmp_path):
    for n in range(6):
        (tmp_path / "in" / "pictures").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "pictures" / f"{n}.jpg").write_bytes(jpeg(picture(n)))
    lines = [
        json.dumps({"image_path": f"pictures/{n}.jpg", "code_dir": "x", "code_name": n, "text": f"picture number {n}"})
        for n in range(6)
    ]
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.toml").write_text(LINES.format(folder=tmp_path))
    recipe = load_recipe(tmp_path / "recipe.toml")
    root = tmp_path / "run"
    rerun(root, "filter", recipe=recipe)
    gone = uid_of("pictures/2.jpg", "picture number 2")
    assert fate(root, gone) == [("kept", None)]
    done = remove(root, uid=gone.hex())
    assert done.counts["manifests/input/*.parquet"] == 1
    left = holding(root, [gone], ["pictures/2.jpg"])
    assert left == {"ledger/final/00000.parquet", "tombstones.parquet"}
    assert whole(root) == []
    before = {name: data for name, data in contents(root).items() if name != "manifests/input.json"}
    os.utime(next((root / "manifests" / "input").glob("*.parquet")))
    os.utime(tmp_path / "in" / "a.jsonl")
    rerun(root, "filter", recipe=recipe)
    assert {name: data for name, data in contents(root).items() if name != "manifests/input.json"} == before
    for path in (root / "manifests" / "input").glob("*.parquet"):
        path.unlink()  # made again, it is blank again
    rerun(root, "filter", recipe=load_recipe(tmp_path / "recipe.toml", ["filter.rules.text.min_words=1"]))
    assert fate(root, gone) == [("dropped", "removed")]
    assert holding(root, [gone], ["pictures/2.jpg"]) == left
    assert whole(root) == []
