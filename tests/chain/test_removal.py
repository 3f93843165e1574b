"""What was removed never comes back: not by a rerun, by later input, another recipe, a repair or a kill; near
duplicates take its place only when asked to."""

import json
import os
import re
import shutil
import signal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from manifests.files import read_json
from manifests.manifest import Manifest
from manifests.shards import read_shard
from manifests.tombstones import TOMBSTONES
from manifests.transaction import ASKED
from manifests.uid import uid_of
from manifests.verify import verify_run
from pipeline.cli import app
from pipeline.execution.run_folder import recipe_of_run
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.maintenance.verify_removed import with_absence
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import differing, mend, without_beam
from tests.support.removals import (
    TWIN,
    URL,
    command,
    contents,
    digests,
    fate,
    final,
    holding,
    picture_of,
    remove,
    rerun,
    uid,
    whole,
)
from tests.support.small_web import SIDE, jpeg, picture, write_input, write_recipe


def test_a_rerun_makes_no_shard_again(run, web):
    remove(run, url=[URL.format(5), URL.format(6)], uid=uid(9).hex())
    before, hits, after = {name: (run / name).stat() for name in contents(run)}, len(web.hits), digests(run)
    assert [finished.made for finished in rerun(run)] == [0] * len(STAGE_STEPS)
    assert len(web.hits) == hits
    data = [name for name in before if not name.startswith("manifests/") and name != "recipe.toml"]
    assert all((run / name).stat().st_mtime_ns == before[name].st_mtime_ns for name in data)
    assert digests(run) == after
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


def test_a_removed_picture_keeps_its_twins_out(run):
    remove(run, url=URL.format(3))
    assert fate(run, TWIN) == [("dropped", "near_duplicate")]
    rerun(run, "filter", recipe=recipe_of_run(run, sets=["dedup.radius=8", "tier.pretrain.rules.aspect.max=3.0"]))
    assert fate(run, TWIN) == [("dropped", "near_duplicate")]
    assert fate(run, uid(3)) == [("dropped", "removed")]
    assert fate(run, uid(4)) == [("kept", None)]


def test_a_removed_picture_that_had_not_won_keeps_nobody_out(run):
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


def test_what_was_removed_is_repaired_as_it_is(removed_two, tmp_path):
    run = shutil.copytree(removed_two, tmp_path / "run")
    names = ["ledger/select/00000.parquet", "ledger/final/00000.parquet", "dedup/00000.parquet", "scores/00000.parquet"]
    names += ["pairs/00000.parquet", "pairs/00000_stats.json", "ledger/fetch/00000.parquet", "codes/pretrain/00000.tar"]
    names += ["codes/encoded/pretrain-00000.parquet", "captions/llava-00000.parquet", "manifests/filter.json"]
    names += ["manifests/plan/fetch/00000.parquet", "manifests/plan/pack/pretrain-00000.parquet"]
    for damaged in (names, ["manifests/journal/score.parquet"]):
        for name in damaged:
            (run / name).write_bytes(b"")
        assert mend(run).left == {}
        assert contents(run) == contents(removed_two)
    (run / TOMBSTONES).write_bytes(b"PAR1")
    assert [(finding.path, finding.kind) for finding in whole(run)] == [(TOMBSTONES, "damaged")]


def _die_at(root, moved):
    """Remove a URL in a process of its own, which kills itself at the fifth file: as all are made ready, or `moved`:
    as they are put in their places."""
    child = os.fork()
    if not child:
        real, done = os.replace, []

        def replace(source, target):
            """Rename a file, or die."""
            if ".removal/new" in str(source if moved else target):
                done.append(source)
                if len(done) == 5:
                    os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)

        try:
            os.replace = replace
            remove(root, url=URL.format(5))
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


@pytest.mark.parametrize("moved", [False, True])
def test_kill_9_and_the_next_run_finishes(run, removed, moved):
    _die_at(run, moved)
    assert ASKED in {finding.path for finding in whole(run)}
    assert (run / ".removal" / "removal.json").exists() is moved
    if moved:  # all new files are whole: whoever comes next moves them
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
    assert contents(run)["manifests/filter.json"] == contents(removed)["manifests/filter.json"]
    # they say where the run is
    assert set(differing(run, removed)) <= {"manifests/input.json", "manifests/recipe.json", "recipe.toml"}
    assert whole(run) == []


def test_no_run_goes_on_without_what_its_removals_left(removed_run, tmp_path):
    run = removed_run
    remove(run, url=URL.format(6))
    kept = shutil.copytree(run, tmp_path / "kept")
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


def test_the_journal_of_removals_comes_back_from_what_it_names(removed, removed_run):
    run, kept = removed_run, removed
    for name in ("tombstones", "0001"):
        (run / f"manifests/journal/remove/{name}.json").unlink()
    (run / "pairs" / "00000.tar").write_bytes(b"")
    assert {finding.path for finding in verify_run(run, STAGE_STEPS).wrong} == set(differing(run, kept))
    assert (mend(run).left, differing(run, kept)) == ({}, [])
    (run / "manifests/journal/remove/0001.json").write_text("{")
    assert (mend(run).left, differing(run, kept)) == ({}, [])


def test_why_tells_of_removed_urls_and_of_their_twins(removed_two):
    run = removed_two
    ask = [
        CliRunner().invoke(app, ["why", "--out", str(run), "--recipe", str(run / "recipe.toml"), x])
        for x in (URL.format(3), TWIN.hex())
    ]
    assert (ask[0].exit_code, f"'{URL.format(3)}' was removed" in ask[0].output) == (1, True), ask[0].output
    assert (
        "mark      near_duplicate: its twin was kept and then removed; pipeline remove --promote-duplicates"
        in ask[1].output
    )


def test_a_run_that_is_not_at_its_end(tmp_path, web):
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
    before = Manifest.read(root / "manifests" / "filter.json").digest
    remove(root, uid=uid(6).hex())
    remove(root, uid=uid(7).hex())
    records = [
        read_json(path)["stages"]["filter"] for path in sorted((root / "manifests" / "removals").glob("*.json"))[1:]
    ]
    assert [entry["before"] for entry in records] == [before, records[0]["after"]]
    assert Manifest.read(root / "manifests" / "filter.json").parent == records[0]["after"]


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
    assert mend(run).left == {}
    assert contents(run) == held


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
