"""Rules and limits that are tightened and put back: nobody is asked again, no model runs again, and the bytes are those
of a fresh run. What lies aside meanwhile is verified, repaired, removed from and pruned."""

import json
import os

import pytest

from manifests.aside import ASIDE, groups
from manifests.manifest import Manifest
from pipeline.recipes.load import load_recipe
from pipeline.stages.run import StageOptions, run_stage
from pipeline.steps.worker_loop import WorkerLoop
from tests.support.commands import pipeline_here
from tests.support.keep_runs import differing, mend, without_beam
from tests.support.killed_runs import kill_when
from tests.support.removals import URL, holding, remove, uid, whole

STAGES = ("filter", "caption", "pretokenize")
STEPS = ("fetch", "score", "caption", "encode", "t5")
NOTHING = dict.fromkeys(STEPS, 0)
TIGHT = "filter.rules.size.min_side=97"
"""Of the 36 rows that were asked for, one that claims to be larger and one without a size stay."""
SLOW = pytest.mark.slow


@pytest.fixture
def seen(monkeypatch):
    """Count what models see: the name of the unit, once for each picture or caption."""
    names: list[str] = []
    batches = WorkerLoop._batches

    def count(self, pairs, earlier, rows):
        for batch in batches(self, pairs, earlier, rows):
            names.extend([self.unit] * len(batch))
            yield batch

    monkeypatch.setattr(WorkerLoop, "_batches", count)
    return names


@pytest.fixture
def again(made, tiny_t5):
    """Run stages of the whole run's recipe with other settings; T5 features are stored."""
    t5 = ['pretokenize.t5="precomputed"', f'pretokenize.t5_weights="{tiny_t5}"', 'pretokenize.t5_caption="alt"']

    def go(root, *sets, stages=STAGES, retry=()):
        with without_beam():
            for stage in stages:
                recipe = load_recipe(made.parent / "recipe.toml", [*t5, *sets, f'output.root="{root}"'])
                run_stage(recipe, stage, StageOptions(retry=retry))
        return [Manifest.read(root / "manifests" / f"{stage}.json").digest for stage in stages]

    return go


@pytest.fixture
def tight(run, again):
    """Return a copy of the whole run, filter run again with the tighter rule: most of its pairs lie aside."""
    again(run, TIGHT, stages=("filter",))
    return run


def faults(root):
    """Return what verify finds but that later stages are behind."""
    return [finding for finding in whole(root) if finding.kind != "stale"]


def damaged_tar(root):
    """Flip a bit in the first picture that lies aside; return the tar's path in the run, and its rows."""
    (group, *_) = groups(root, ASIDE, "fetch")
    (tar,) = [group.folder / file.path for file in group.files if file.path.endswith(".tar")]
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(bytes(data))
    return tar.relative_to(root).as_posix(), group.rows


def rows_aside(root):
    return {step: sum(group.rows for group in groups(root, ASIDE, step)) for step in STEPS}


@pytest.mark.parametrize(
    ("change", "stages"),
    [pytest.param("input.limit=20", STAGES, marks=SLOW), (TIGHT, ("filter",))],
    ids=["limit, all stages", "size, filter"],
)
def test_tightened_and_put_back_asks_nobody_and_runs_no_model(run, again, web, seen, tmp_path, change, stages):
    first = again(run, stages=stages)
    held = rows_in(run)
    asked, models = len(web.hits), len(seen)
    less = again(run, change, stages=stages)
    assert (web.hits[asked:], seen[models:]) == ([], [])
    assert not (run / ".earlier").exists()
    fallen = {step: held[step] - rows_in(run)[step] for step in STEPS}
    assert rows_aside(run) == fallen
    assert (fallen["fetch"], fallen["score"]) == {"input.limit=20": (22, 13), TIGHT: (34, 21)}[change]
    assert stages == ("filter",) or all(fallen.values())
    assert faults(run) == []
    assert less == again(tmp_path / "fresh", change, stages=stages)
    others = {name for name in differing(run, tmp_path / "fresh") if name.startswith(("pairs/", "ledger/", "scores/"))}
    assert others == set()
    asked, models = len(web.hits), len(seen)
    assert again(run, stages=stages) == first
    assert (web.hits[asked:], seen[models:]) == ([], [])
    assert rows_in(run) == held
    assert not (run / ASIDE).exists()


def rows_in(root):
    """Return step -> rows in its shards; of encode and t5, which make a picture's or caption's row for each tier, each
    once."""
    from manifests.files import read_table
    from manifests.journal import records_of
    from pipeline.execution.reuse import stamped

    counts = {}
    for step in STEPS:
        tables = [stamped(root / file.path for file in record.files)[0] for record in records_of(root, step)]
        counts[step] = len({row for path in tables for row in read_table(path, ["uid"])["uid"].to_pylist()})
    return counts


def test_what_a_retry_brought_is_not_asked_for_again(run, again, web, monkeypatch):
    again(run, stages=("filter",))
    monkeypatch.setitem(web.pages, "/none.jpg", web.pages["/39.jpg"])
    (first,) = again(run, stages=("filter",), retry=("http_404",))
    asked = len(web.hits)
    again(run, TIGHT, stages=("filter",))
    assert again(run, stages=("filter",)) == [first]
    assert web.hits[asked:] == []
    assert not (run / ASIDE).exists()


def test_rows_that_an_exclusion_list_names_go_though_no_plan_holds_them(tight, again, web, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"url\n{URL.format(5)}\n")
    before = rows_aside(tight)
    listed = f'filter.exclude=[{{file="{tmp_path}/list.txt"}}]'
    again(tight, TIGHT, listed, stages=("filter",))
    after = rows_aside(tight)
    assert (before["fetch"] - after["fetch"], before["score"] - after["score"]) == (1, 1)
    told = "fetch: 1 rows that were set aside are let go: an exclusion list or a tombstone names them"
    assert told in capsys.readouterr().err
    assert [path for path in holding(tight, [uid(5)], []) if path.startswith(ASIDE)] == []


@pytest.mark.parametrize(
    ("kind", "share", "at_once"),
    [
        *((kind, "input.limit=4", False) for kind in ("url", "host", "uid", "hash")),
        ("url", "input.sample=0.1", False),
        ("host", "input.sample=0.1", True),
        ("uid", "input.limit=4", True),
    ],
)
def test_rows_that_a_list_names_go_from_aside_under_a_limit_or_sample(
    run, again, web, tmp_path, capsys, kind, share, at_once
):
    """No ledger holds the rows outside the limit: what lies aside is held against the list itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from filters.exclude import laion_hashes

    again(run, stages=("filter",))
    if not at_once:
        again(run, share, stages=("filter",))
    tables = [*(run / ASIDE / "fetch").glob("*-pairs.parquet"), *(run / "pairs").glob("*.parquet")]
    pairs = {pair["key"]: pair for path in tables for pair in pq.read_table(path).to_pylist()}
    pair = pairs[uid(5).hex()]
    value = {
        "url": pair["url"],
        "host": "pictures.test",
        "uid": pair["key"],
        "hash": laion_hashes(pa.array([pair["url"]]), pa.array([pair["caption"]]))[0].as_py(),
    }[kind]
    (tmp_path / "list.txt").write_text(f"{kind}\n{value}\n")
    listed = f'filter.exclude=["{tmp_path}/list.txt"]'
    again(run, share, listed, stages=("filter",))
    assert "fetch: " in (told := capsys.readouterr().err)
    assert "let go: an exclusion list or a tombstone names them" in told
    assert [path for path in holding(run, [uid(5)], []) if path.startswith((ASIDE, "pairs", "scores"))] == []
    asked = len(web.hits)
    again(run, listed, stages=("filter",))
    assert [path for path in web.hits[asked:] if path.endswith(".jpg")] == []
    assert faults(run) == []


def test_damaged_records_of_what_lies_aside_are_told_and_repair_drops_them(tight, again, capsys):
    records = sorted(path for step in ("fetch", "score") for path in (tight / ASIDE / step).glob("*.json"))
    for path in records:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    again(tight, TIGHT, stages=("filter",))
    told = capsys.readouterr().err
    for path in records:
        name = path.relative_to(tight).as_posix()
        assert f"warning: {name.split('/')[1]}: {name} is damaged: none of its rows is used" in told
    mend(tight)
    assert list((tight / ASIDE).rglob("*-*.*")) == []
    assert faults(tight) == []


def test_a_damaged_record_is_told_before_its_shard_is_made_anew(run, again, capsys):
    again(run, stages=("filter",))
    (run / "manifests/journal/score/00001.json").write_text("{}")
    (run / "pairs/00000.tar").write_bytes(b"cut")
    again(run, stages=("filter",))
    told = capsys.readouterr().err
    assert "warning: score: the records of 1 shards, such as 00001, are damaged: they are made anew" in told
    assert "warning: fetch: pairs/00000.tar is missing or damaged: what it held is not set aside" in told


def test_other_limits_keep_the_pictures_of_before(run, again, web):
    (first,) = again(run, stages=("filter",))
    pictures = sum(group.rows for group in groups(run, ASIDE, "fetch"))
    assert pictures == 0
    again(run, "fetch.jpeg_quality=50", stages=("filter",))
    assert rows_aside(run)["fetch"] == rows_in(run)["fetch"]
    asked = len(web.hits)
    assert again(run, stages=("filter",)) == [first]
    assert web.hits[asked:] == []


@pytest.mark.parametrize("tier", ["finetune"])
def test_a_tier_that_is_tightened_and_put_back_takes_what_another_holds(run, again, seen, tier):
    sizes = ("tier.pretrain.size=64", "tier.finetune.size=64")
    first = again(run, *sizes)
    models = len(seen)
    again(run, *sizes, f"tier.{tier}.max_pairs=1")
    assert again(run, *sizes) == first
    assert seen[models:] == []
    assert not (run / ".earlier").exists()


def test_t5_features_outlive_the_days_on_which_they_are_made_online(run, again, seen):
    again(run)
    features = rows_in(run)["t5"]
    again(run, 'pretokenize.t5="online"', stages=("pretokenize",))
    assert (rows_aside(run)["t5"], rows_in(run)["t5"]) == (features, 0)
    models = len(seen)
    again(run, stages=("pretokenize",))
    assert (seen[models:], rows_aside(run)) == ([], NOTHING)


@SLOW
@pytest.mark.parametrize("stop", range(5, 95, 10))
def test_kills_between_tightening_and_putting_back_lose_nothing(run, again, web, seen, monkeypatch, stop):
    (first,) = again(run, stages=("filter",))
    asked, models = len(web.hits), len(seen)
    real, renames = os.replace, []

    def replace(source, target):
        renames.append(target)
        if len(renames) == stop:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("manifests.files.os.replace", replace)
    for sets in ((TIGHT,), ()):
        renames.clear()
        try:
            again(run, *sets, stages=("filter",))
        except KeyboardInterrupt:
            continue  # with the other rules next: what was begun is never ended
    monkeypatch.undo()
    assert again(run, stages=("filter",)) == [first]
    assert (web.hits[asked:], seen[models:]) == ([], [])
    assert (rows_aside(run), faults(run)) == (NOTHING, [])


@SLOW
def test_runs_and_workers_that_are_killed_in_turn_lose_nothing(run, made, web):
    """kill -9 as soon as shards are set aside, and as soon as the first rows lie aside, with either rule."""
    line = ("run", "--stage", "filter", "--recipe", made.parent / "recipe.toml", "--out", run, "--workers", 2)
    first = Manifest.read(run / "manifests" / "filter.json").digest
    asked, killed = len(web.hits), 0
    moments = (lambda: any((run / ".earlier").glob("*/*.json")), lambda: any((run / ASIDE).glob("*/*.json")))
    for ready in moments:
        killed += kill_when(ready, *line, "--set", TIGHT)
    for ready in (moments[0], lambda: not (run / ASIDE / "fetch").exists()):
        killed += kill_when(ready, *line)
    assert killed >= 2
    pipeline_here(*line[:-2])
    assert Manifest.read(run / "manifests" / "filter.json").digest == first
    assert web.hits[asked:] == []
    assert (rows_aside(run), faults(run)) == (NOTHING, [])


def test_a_damaged_file_is_named_never_used_and_dropped_by_repair(tight, again, web):
    before = rows_aside(tight)["fetch"]
    name, rows = damaged_tar(tight)
    assert [(found.path, found.kind) for found in faults(tight)] == [(name, "damaged")]
    mended = mend(tight)
    why = "a plan that wants its rows again asks or computes them anew"
    assert mended.repaired == {name: f"dropped with its {rows} rows: {why}"}
    assert rows_aside(tight)["fetch"] == before - rows
    assert faults(tight) == []
    asked = len(web.hits)
    again(tight, stages=("filter",))
    assert 0 < len([path for path in web.hits[asked:] if path.endswith(".jpg")]) <= rows


def test_a_damaged_file_is_not_used_where_nobody_repairs(tight, again, web, capsys):
    name, rows = damaged_tar(tight)
    asked = len(web.hits)
    again(tight, stages=("filter",))
    assert 0 < len([path for path in web.hits[asked:] if path.endswith(".jpg")]) <= rows
    table = name.replace("-pairs.tar", "-ledger.parquet")
    assert f"warning: fetch: {table} is damaged: none of its rows is used" in capsys.readouterr().err
    assert not (tight / ASIDE / "fetch").exists()  # its rows were asked for again


def test_a_lost_record_is_a_note_and_its_files_go_with_the_next_run(tight, again, capsys):
    (record, *_) = (tight / ASIDE / "score").glob("*.json")
    record.unlink()
    assert faults(tight) == []
    assert next((tight / ASIDE / "score").glob(f"{record.stem}-*"), None) is not None
    again(tight, stages=("filter",))
    assert f"score: {record.stem}-scores.parquet is dropped: no record says what it is" in capsys.readouterr().err
    assert next((tight / ASIDE).rglob(f"{record.stem}-*"), None) is None


def test_removed_rows_go_from_what_lies_aside_too(tight, again, web):
    name = uid(5)
    assert len([path for path in holding(tight, [name], [URL.format(5)]) if path.startswith(f"{ASIDE}/fetch/")]) == 3
    before = rows_aside(tight)
    remove(tight, url=URL.format(5))
    assert {path for path in holding(tight, [name], [URL.format(5)]) if "final" not in path} == {"tombstones.parquet"}
    after = rows_aside(tight)
    assert (after["fetch"], after["score"]) == (before["fetch"] - 1, before["score"] - 1)
    assert faults(tight) == []
    asked = len(web.hits)
    again(tight, stages=("filter",))
    assert web.hits[asked:] == []
    assert holding(tight, [name], [URL.format(5)]) <= {
        "tombstones.parquet",
        *(path.relative_to(tight).as_posix() for path in (tight / "ledger" / "final").iterdir()),
    }


@pytest.mark.parametrize("kind", ["url", "host", "uid", "sha256", "phash"])
def test_a_row_that_lies_aside_alone_is_found_by_every_selector(run, again, kind):
    """With a limit the ledgers know nothing of the rows outside."""
    import pyarrow.parquet as pq

    again(run, "input.limit=4", stages=("filter",))
    tables = [pq.read_table(path) for path in (run / ASIDE / "score").glob("*.parquet")]
    row = next(row for table in tables for row in table.to_pylist() if row["phash"])
    (pair,) = [
        pair
        for path in (run / ASIDE / "fetch").glob("*-pairs.parquet")
        for pair in pq.read_table(path).to_pylist()
        if pair["key"] == row["uid"].hex()
    ]
    value = {
        "url": pair["url"],
        "host": "pictures.test",
        "uid": pair["key"],
        "sha256": pair["sha256"],
        "phash": f"{row['phash']:016x}",
    }[kind]
    before = rows_aside(run)
    done = remove(run, **{kind: value})
    assert sum(done.found.values()) >= 1
    assert row["uid"] not in {
        one for path in (run / ASIDE).rglob("*-scores.parquet") for one in pq.read_table(path)["uid"].to_pylist()
    }
    assert holding(run, [row["uid"]], []) <= {"tombstones.parquet"}
    assert rows_aside(run)["fetch"] < before["fetch"]
    assert faults(run) == []


def test_a_uid_that_was_removed_outside_the_limit_is_neither_asked_for_nor_kept(run, again, web):
    import pyarrow.parquet as pq

    again(run, "input.limit=4", stages=("filter",))
    aside = sorted(
        key for p in (run / ASIDE / "fetch").glob("*-pairs.parquet") for key in pq.read_table(p)["key"].to_pylist()
    )
    absent = "ab" * 16
    done = remove(run, uid=[aside[0], absent])
    assert (done.rows, done.uids, sorted(done.found.values())) == (0, 1, [0, 1])
    asked = len(web.hits)
    again(run, stages=("filter",))
    assert web.hits[asked:] == []
    assert holding(run, [bytes.fromhex(aside[0])], []) == {"tombstones.parquet"}
    assert Manifest.read(run / "manifests" / "filter.json").dropped["removed"] == 1
    assert faults(run) == []


def test_prune_shows_what_lies_aside_and_lets_it_go(tight, again):
    shown = pipeline_here("prune", tight)
    rows = rows_aside(tight)
    assert (shown.exit_code, rows["fetch"] > 20) == (0, True)
    assert f"fetch    {rows['fetch']:>12,} rows       20 files" in shown.output
    document = json.loads(pipeline_here("prune", tight, "--json").stdout)
    files = [path for path in (tight / ASIDE).rglob("*") if path.is_file()]
    assert document["bytes"] == sum(path.stat().st_size for path in files)
    assert (document["files"], document["let_go"], document["under_way"]) == (len(files), False, {})
    assert document["steps"]["score"]["rows"] == rows["score"]
    assert (tight / ASIDE).exists()
    gone = json.loads(pipeline_here("prune", tight, "--yes", "--json").stdout)
    assert gone == {**document, "let_go": True}
    assert not (tight / ASIDE).exists()
    assert faults(tight) == []
    assert "nothing is set aside" in pipeline_here("prune", tight, "--yes").output
