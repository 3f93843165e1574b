"""Survivors are cut into shards in input order, the first row of each uid; added files and removed rows move nobody."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.fetch.budget import Share
from filters.fetch.optout import OPT_OUTS
from manifests.journal import Journal
from manifests.schema import CARRIED, schema
from manifests.tables import ATTEMPTS, SELECTED
from manifests.tombstones import TABLE, write_tombstones
from pipeline.execution.step import Runtime
from pipeline.inputs.files import InputFile
from pipeline.inputs.input_list import register_files
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.steps.fetch import step as step_module
from pipeline.steps.fetch.step import PLANNED, Fetch
from tests.support.records import put_table, uid

RECIPE = {"fetch": {"shard_rows": 2}, "tier": {"a": {"size": 160}}}


def fetch(root, runtime=None, dataset="laion-coco", **values):
    recipe = {**RECIPE, "input": {"dataset": dataset}, "fetch": {**RECIPE["fetch"], **values}}
    return Fetch(parse_recipe(recipe), root, runtime or Runtime())


def put_selected(root, source, *rows):
    """Put select's ledger of a file: rows are (number of the uid, reason)."""
    table = [
        {"uid": uid(n), "source": source, "source_row": row, "url": f"http://x.test/{n}", "text": "t", "reason": reason}
        for row, (n, reason) in enumerate(rows)
    ]
    put_table(root, "select", f"ledger/select/{source}.parquet", table, SELECTED)


def add_files(root, *names):
    register_files(root, [InputFile(f"{name}.parquet", name, 1, name) for name in names])


@pytest.fixture
def root(tmp_path):
    """Return a run folder of two files: numbers 1, 2, 3 in the first, 4, 1 once more and 5 in the second; 9 was
    dropped."""
    add_files(tmp_path, "a", "b")
    put_selected(tmp_path, "a", (3, None), (9, "size"), (1, None), (2, None))
    put_selected(tmp_path, "b", (4, None), (1, None), (5, None))
    return tmp_path


def shards(root):
    """Return, by the plan's shard, the numbers of the uids."""
    return {
        unit.name: [row[0] for row in pq.read_table(root / unit.reads["plan"])["uid"].to_pylist()]
        for unit in fetch(root).plan()
    }


def test_survivors_stand_in_input_order_and_only_the_first_row_of_a_uid(root):
    assert shards(root) == {"00000": [3, 1], "00001": [2, 4], "00002": [5]}
    assert pq.read_schema(root / "manifests/plan/fetch/00000.parquet").equals(schema(*PLANNED))
    assert {"uid", "source", "source_row", "url", *CARRIED} == set(PLANNED)


def test_files_that_were_added_begin_a_shard_of_their_own(root):
    before = {unit.name: unit.content for unit in fetch(root).plan()}
    files = [InputFile(f"{name}.parquet", name, 1, name) for name in ("a", "b", "c")]
    register_files(root, files)
    put_selected(root, "c", (7, None), (5, None), (8, None))
    assert shards(root) == {"00000": [3, 1], "00001": [2, 4], "00002": [5], "00003": [7, 8]}
    after = {unit.name: unit.content for unit in fetch(root).plan()}
    assert {name: after[name] for name in before} == before


def test_a_removed_row_leaves_its_place_empty(root):
    nobody = dict.fromkeys(TABLE.names)
    row = {"kind": "uid", "value_sha256": "0", "uid": uid(1), "source": "a", "source_row": 2, "shard": "00000"}
    write_tombstones(root, [{**nobody, "won": False, "promote": False, **row}])
    put_selected(root, "a", (3, None), (9, "size"), (1, "removed"), (2, None))
    put_selected(root, "b", (4, None), (6, "removed"), (5, None))
    assert shards(root) == {"00000": [3], "00001": [2, 4], "00002": [5]}


def test_nothing_survives(tmp_path):
    assert fetch(tmp_path).plan() == []
    add_files(tmp_path, "a")
    put_selected(tmp_path, "a", (1, "size"))
    assert shards(tmp_path) == {}


def test_how_to_get_there_is_no_part_of_the_key_and_what_is_stored_is(tmp_path):
    key = fetch(tmp_path).own_key
    courtesy = {"connect_to": {"x.test": "127.0.0.1:1"}, "concurrency": 2, "user_agent": "t/1 (a@b.org)", "retries": 3}
    assert fetch(tmp_path, **courtesy, host_rate=1, breaker_rest_s=1).own_key == key
    others = ({"jpeg_quality": 90}, {"max_bytes": 10}, {"robots": False}, {"store_side": 99})
    assert len({key, *(fetch(tmp_path, **values).own_key for values in others)}) == 5


def test_words_and_keys_that_came_later_leave_the_key_of_before_alone(tmp_path):
    """These are the settings that a default recipe had before robots_4xx and the later words of opt_outs were
    there."""
    former = ["noai", "noimageai", "noml", "noindex", "noimageindex", "none", "tdmrep"]
    before = {
        "engine": "tessera", "deadline_s": 20.0, "max_bytes": 50_000_000, "max_redirects": 5,
        "max_pixels": 100_000_000, "allow_addresses": [], "shard_rows": 2, "store_side": 176, "robots": True,
        "opt_outs": former, "jpeg_quality": 95,
    }  # fmt: skip
    assert fetch(tmp_path).settings() == before
    later = [word for word in OPT_OUTS if word not in former]
    assert fetch(tmp_path, opt_outs=former).settings() == {**before, "opt_outs_off": later}  # "none" is not "all"
    for word in later:
        others = [name for name in OPT_OUTS if name != word]
        assert fetch(tmp_path, opt_outs=others).settings() == {**before, "opt_outs_off": [word]}
    assert fetch(tmp_path, opt_outs=later).settings() == {**before, "opt_outs": []}
    assert fetch(tmp_path, robots_4xx="refuse").settings() == {**before, "robots_4xx": "refuse"}
    assert fetch(tmp_path, keep_metadata=True).settings() == {**before, "keep_metadata": True}


def test_a_worker_knows_this_invocations_hosts_and_stores_a_tenth_more_than_the_largest_tier(tmp_path):
    runtime = Runtime(connect_to={"b.test": "127.0.0.1:2"})
    worker = fetch(tmp_path, runtime, connect_to={"a.test": "127.0.0.1:1"}, max_pixels=5000).open()
    assert dict(worker.config.connect_to) == {"a.test": "127.0.0.1:1", "b.test": "127.0.0.1:2"}
    assert (worker.limits.max_pixels, worker.limits.store_side, worker.limits.keep_metadata) == (5000, 176, False)
    assert fetch(tmp_path, keep_metadata=True).open().limits.keep_metadata
    assert (worker.own, worker.barred) == (None, frozenset())


def test_a_worker_knows_which_urls_lists_name_for_where_redirects_lead(tmp_path):
    (tmp_path / "list.txt").write_text("http://x.test/1\n")
    recipe = {**RECIPE, "input": {"dataset": "laion-coco"}, "filter": {"exclude": [f"{tmp_path}/list.txt"]}}
    worker = Fetch(parse_recipe(recipe), tmp_path, Runtime()).open()
    assert [worker.memory.bars(f"http://x.test/{path}") for path in ("%31?", "2")] == [True, False]
    assert not fetch(tmp_path).open().memory.bars("http://x.test/1")


def test_the_other_engine_is_warned_of_or_refused_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(step_module, "missing", lambda: "")
    assert fetch(tmp_path).notes() == []
    assert [note[:20] for note in fetch(tmp_path, engine="img2dataset").notes()] == ["warning: fetch.engin"]
    monkeypatch.setattr(step_module, "missing", lambda: "no module called so")
    assert fetch(tmp_path).notes() == []
    assert fetch(tmp_path, dataset="img2dataset", engine="img2dataset").notes() == []  # its pictures are there already
    with pytest.raises(RecipeError, match='no module called so; the other choice is "tessera"'):
        fetch(tmp_path, engine="img2dataset").notes()


def test_the_plan_is_one_table_a_shard(root):
    fetch(root).plan()
    put_selected(root, "b", (4, "size"), (1, None), (5, "size"))
    fetch(root).plan()
    plan = root / "manifests" / "plan" / "fetch"
    assert [path.name for path in sorted(plan.glob("*.parquet"))] == ["00000.parquet", "00001.parquet"]
    assert pa.concat_tables(map(pq.read_table, sorted(plan.glob("*.parquet"))))["source_row"].to_pylist() == [0, 2, 3]


def test_the_manifest_gets_refusals_by_signal(tmp_path):
    assert fetch(tmp_path).facts() == {}
    nothing = {"uid": uid(1), "attempt": 1, "last": True, "http_status": None}
    row = {**nothing, "reason": "opted_out", "rule": "X-Robots-Tag", "value": "noai"}
    record = put_table(tmp_path, "fetch", "ledger/fetch/00000.parquet", [row, {**row, "uid": uid(2)}], ATTEMPTS)
    Journal(tmp_path, "fetch").record(replace(record, rows_out=0, dropped={"opted_out": 2}))
    assert fetch(tmp_path).facts() == {"refusals": {"X-Robots-Tag": 2}}


def test_workers_of_one_machine_share_a_budget_and_those_of_a_cluster_cut_it(tmp_path):
    beside = Runtime(lanes=4, lane=2, budget=str(tmp_path / "fetch.budget"))
    alone, shared, cut = (fetch(tmp_path, runtime).open() for runtime in (None, beside, Runtime(lanes=4)))
    assert (alone.share, cut.share) == (None, None)
    assert shared.share == Share(tmp_path / "fetch.budget", 2, 4)
    assert [(worker.config.host_rate, worker.config.host_connections) for worker in (alone, shared, cut)] == [
        (20, 8),
        (20, 8),
        (5, 2),
    ]
    assert fetch(tmp_path, Runtime(lanes=4)).own_key == fetch(tmp_path).own_key


@pytest.mark.parametrize(("lanes", "got"), [(0, "nothing that says how many"), (9, "9")])
def test_a_cluster_whose_workers_cannot_share_a_site_is_refused(tmp_path, lanes, got):
    with pytest.raises(RecipeError, match=f"got {got}, wanted 1 to 8 .fetch.host_connections."):
        fetch(tmp_path, Runtime(lanes=lanes)).notes()
    assert fetch(tmp_path, Runtime(lanes=lanes), "jsonl").notes() == []
    assert fetch(tmp_path).notes() == []
    told = ["each of 8 workers takes 1/8 of fetch.host_rate and fetch.host_connections"]
    assert fetch(tmp_path, Runtime(lanes=8)).notes() == told


def test_shards_of_an_earlier_version_say_what_they_were_not_asked_about(root):
    assert fetch(root).notes() == []
    put_table(root, "fetch", "ledger/fetch/00000.parquet", [], ATTEMPTS)
    assert fetch(root).notes() == []
    put_table(root, "fetch", "ledger/fetch/00000.parquet", [], pa.schema([ATTEMPTS.field("uid")]))
    (note,) = fetch(root).notes()
    assert note == (
        "note: shards of an earlier version were fetched before content-signal, aipref, xmp, c2pa were obeyed; pipeline"
        f" recheck {root} asks their sites again"
    )
    assert fetch(root, opt_outs=["noai"]).notes() == fetch(root, dataset="jsonl").notes() == []
