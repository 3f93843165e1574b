"""The chain on a small web: fates, conservation, reruns, workers, kills, other thresholds, wrong uses. One run feeds
most tests."""

import json
import os
import random
import resource
import shutil
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.journal import records_of
from manifests.shards import read_shard, verify_shard
from pipeline.stages.registry import STAGES
from tests.support import journals
from tests.support.commands import digests, final, manifest, pipeline_here, run, run_here, run_with_workers
from tests.support.killed_runs import Killer, kill_when
from tests.support.small_web import EXPECTED, KEPT, trouble, write_input, write_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory, web):
    """Return (recipe, run folder) of a finished chain: filter and pretokenize with two workers."""
    folder = tmp_path_factory.mktemp("chain")
    write_input(folder / "in")
    recipe = write_recipe(folder / "recipe.toml", web, folder / "in", folder / "run")
    run_with_workers(recipe, "filter", "--workers", "2")
    run_here(recipe, "caption")
    run_with_workers(recipe, "pretokenize", "--workers", "2")
    return recipe, folder / "run"


def test_every_row_has_one_fate_and_the_right_reason(place):
    _, root = place
    made = manifest(root, "filter")
    # a.parquet: 32 rows; b.parquet: 10 rows without a picture and 10 in the broken group
    assert made.rows_in == 52 == made.kept + sum(made.dropped.values())
    assert made.kept == KEPT
    assert made.dropped == dict(sorted({**EXPECTED, "http_404": 11}.items(), key=lambda item: (-item[1], item[0])))
    assert [(loss["kind"], loss["name"]) for loss in made.losses] == [("file", "c.parquet"), ("row_group", "b.parquet")]
    assert (made.losses[1]["row_group"], made.losses[1]["rows"]) == (1, 10)


def test_the_final_ledger_has_each_input_row_once_in_order(place):
    _, root = place
    table = final(root)
    keys = list(zip(table["source"].to_pylist(), table["source_row"].to_pylist(), strict=True))
    assert keys == [("a.parquet", n) for n in range(32)] + [("b.parquet", n) for n in range(20)]
    assert table["url"].to_pylist()[:32] == [row[0] for row in trouble()]
    rows = table.to_pylist()
    assert all((row["fate"] == "kept") == (row["reason"] is None) == bool(row["tiers"]) for row in rows)
    assert all((row["uid"] is None) == (row["reason"] == "broken_row_group") for row in rows)
    by_text = dict(zip([row[1] for row in trouble()], rows, strict=False))
    assert by_text["claims to be large"]["reason"] == "size"
    assert (by_text["claims to be large"]["width"], by_text["claims to be large"]["width_origin"]) == (20, "decoded")
    assert by_text["says no size"]["fate"] == "kept"
    assert by_text["picture number three again"]["reason"] == "near_duplicate"


def test_pairs_are_laid_out_as_img2dataset_does(place):
    _, root = place
    table = pa.concat_tables(pq.read_table(path) for path in sorted((root / "pairs").glob("*.parquet")))
    samples = [sample for path in sorted((root / "pairs").glob("*.tar")) for sample in read_shard(path)]
    good = table.filter(pa.compute.equal(table["status"], "success"))
    assert [key for key, _ in samples] == good["key"].to_pylist()
    assert all(set(sample) == {"jpg", "txt", "json"} for _, sample in samples)
    note = json.loads(samples[0][1]["json"])
    assert note["caption"] == samples[0][1]["txt"].decode() == "picture number 0"
    counts = [json.loads(path.read_text()) for path in sorted((root / "pairs").glob("*_stats.json"))]
    assert sum(count["successes"] for count in counts) == len(samples)
    assert sum(count["count"] for count in counts) == table.num_rows


def test_codes_carry_captions_and_provenance(place):
    _, root = place
    finetune = [sample for path in sorted((root / "codes" / "finetune").glob("*.tar")) for sample in read_shard(path)]
    assert len(finetune) == manifest(root, "pretokenize").tiers["finetune"] == 21
    note = json.loads(finetune[0][1]["json"])
    assert [caption["source"] for caption in note["captions"]] == ["alt", "llava", "llava_short"]
    assert "stand-in weights" in note["captions"][1]["model"]
    assert note["tokenizer"]["stand_in"] is True
    assert note["parent_digest"] == manifest(root, "filter").digest
    assert all(verify_shard(path) for path in (root / "codes").glob("*/*.tar"))
    import numpy as np

    codes = np.load(__import__("io").BytesIO(finetune[0][1]["codes.npy"]), allow_pickle=False)
    assert (codes.dtype, codes.shape) == (np.uint16, (1, 64))


def test_stand_ins_are_named_in_manifests(place):
    _, root = place
    for stage in ("caption", "pretokenize"):
        assert all(entry["stand_in"] for entry in manifest(root, stage).weights)


def test_running_again_does_nothing_and_says_so(place):
    recipe, root = place
    before = digests(root)
    for stage in ("filter", "caption", "pretokenize"):
        assert f"{stage}: nothing to do" in run_here(recipe, stage).output
    assert digests(root) == before


def test_no_worker_and_another_folder_give_the_same_digests(place, tmp_path):
    recipe, root = place
    for stage in ("filter", "caption", "pretokenize"):
        run_here(recipe, stage, "--out", tmp_path / "elsewhere")
    assert digests(tmp_path / "elsewhere") == digests(root)


def test_another_threshold_runs_decide_and_what_follows(place, tmp_path):
    recipe, root = place
    shutil.copytree(root, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "pairs").iterdir()}
    change = ("--set", "tier.finetune.rules.size.min_side=97", "--out", tmp_path / "run")
    said = run_here(recipe, "filter", *change).output
    assert "decide changed (tiers); runs again: decide" in said
    assert "3 were done" not in said.split("decide   ")[-1]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "pairs").iterdir()} == before
    assert manifest(tmp_path / "run", "filter").tiers == {"pretrain": 21, "finetune": 0}
    run_here(recipe, "pretokenize", *change)
    assert not list((tmp_path / "run" / "codes" / "finetune").glob("*.tar"))


def test_another_threshold_at_select_fetches_nothing_again(place, tmp_path, web):
    """Every row's place in its shard changes; pictures and scores are carried over, and the bytes are those of a fresh
    run."""
    recipe, root = place
    shutil.copytree(root, tmp_path / "old")
    change = ("--set", "filter.rules.size.min_side=97")
    before = len(web.hits)
    said = run_here(recipe, "filter", *change, "--out", tmp_path / "old").output
    assert "select changed (rules); decide changed (filter); runs again: select, fetch, score, dedup, decide" in said
    assert web.hits[before:] == []
    run_here(recipe, "filter", *change, "--out", tmp_path / "new")
    assert web.hits[before:] != []
    assert manifest(tmp_path / "old", "filter").digest == manifest(tmp_path / "new", "filter").digest
    assert not (tmp_path / "old" / ".earlier").exists() or not list((tmp_path / "old" / ".earlier").iterdir())


def has_records(out, count):
    return journals.count(out) >= count


def test_ten_kills_at_random_points_then_the_same_digests(place, tmp_path):
    """One folder on its way through three stages; each time it goes on from what the last kill left.

    Two kills hit a run and its workers at any moment, eight hit a run of one process between a file and its record.
    """
    recipe, root = place
    out, done, killed = tmp_path / "run", 0, []
    with Killer() as killer:
        for stage, kills in (("filter", 4), ("caption", 2), ("pretokenize", 4)):
            more = sum(1 + len(records_of(root, step.name)) for step in STAGES[stage])
            points = sorted(
                random.choices(range(done, done + more - 1), k=kills)
            )  # not the last record: the run would end before the kill
            if stage != "caption":
                line = ("run", "--stage", stage, "--recipe", recipe, "--out", out, "--workers", 2)
                killed.append(kill_when(partial(has_records, out, points.pop(0)), *line))
            killed += [killer.before(recipe, out, stage, point) for point in points]
            run_here(recipe, stage, "--out", out)
            assert manifest(out, stage).digest == manifest(root, stage).digest, (
                f"{stage} killed at {points} of {done}..{done + more} records"
            )
            done += more
    assert sum(killed) >= 5, killed
    assert not list(out.rglob(".tmp-*-*"))


def test_a_full_disk_stops_cleanly_and_goes_on_later(place, tmp_path):
    recipe, root = place

    def small_files():
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # Python keeps a cut .pyc, and fails over it ever after
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, resource.RLIM_INFINITY))

    done = run(recipe, "filter", "--out", tmp_path / "run", code=1, preexec_fn=small_files)
    assert "no room left" in done.stderr
    assert "run the same command again" in done.stderr
    run_here(recipe, "filter", "--out", tmp_path / "run")
    assert manifest(tmp_path / "run", "filter").digest == manifest(root, "filter").digest


def test_a_smaller_limit_is_part_of_a_larger_one(place, tmp_path):
    recipe, _ = place
    chosen = []
    for limit in (10, 25):
        out = tmp_path / str(limit)
        run_here(recipe, "filter", "--step", "select", "--limit", limit, "--out", out)
        tables = [pq.read_table(path) for path in sorted((out / "ledger" / "select").glob("*.parquet"))]
        chosen.append({uid for table in tables for uid in table["uid"].to_pylist() if uid})
    assert chosen[0] < chosen[1]


def test_why_tells_the_story(place):
    recipe, _ = place
    told = pipeline_here("why", "http://pictures.test/1.jpg", "--recipe", recipe).output
    assert "fate      kept" in told
    assert "(decoded)" in told
    assert "pretrain: " in told
    assert "llava-0000" in told
    assert "dropped: http_404" in pipeline_here("why", "http://pictures.test/none.jpg", "--recipe", recipe).output
    missing = pipeline_here("why", "f" * 32, "--recipe", recipe)
    assert missing.exit_code == 1
    assert "no row" in missing.stderr


def test_a_folder_of_another_input_is_refused(place, tmp_path):
    recipe, root = place
    shutil.copytree(root, tmp_path / "run")
    write_input(tmp_path / "in")
    table = pq.read_table(tmp_path / "in" / "a.parquet").slice(1)
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    done = run_here(
        recipe, "filter", "--out", tmp_path / "run", "--set", f"input.files={tmp_path}/in/*.parquet", code=2
    )
    assert "made from another input: a.parquet has other content now" in done.stderr


def test_a_held_folder_is_refused(place):
    import fcntl

    recipe, root = place
    with open(root / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "held by another run" in run_here(recipe, "filter", code=2).stderr


def test_missing_columns_are_named_once(place):
    recipe, _ = place
    said = run_here(recipe, "filter", "--dry-run").output
    assert "warning: the input lacks punsafe, pwatermark, similarity, top_caption" in said
