"""pipeline/maintenance/remove/run.py: removed rows are in no file but the final ledger's uid and the tombstones, no
other file is written, a removal that was killed is gone on with, and a damaged run is left alone."""

import re
import shutil

import pyarrow as pa
import pytest

from filters.url_forms import normal_urls
from manifests.files import read_json
from manifests.manifest import Manifest
from manifests.schema import DIGESTS
from manifests.tombstones import TOMBSTONES, read_tombstones, value_digest
from manifests.transaction import ASKED
from manifests.uid import uid_of
from pipeline.execution.partial import Partial
from pipeline.execution.redaction import DamagedFileError
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime
from pipeline.maintenance.remove.run import Outcome, remove_rows
from pipeline.maintenance.remove.selectors import selector
from pipeline.maintenance.repair.run import STAGE_STEPS
from tests.support.removals import (
    URL,
    contents,
    digests,
    fate,
    final,
    holding,
    interrupted,
    pair_of,
    picture_of,
    remove,
    uid,
    whole,
)


def test_a_url_is_gone_from_every_file(removed, made):
    gone = uid(5)
    assert len(holding(made, [gone], [URL.format(5)])) > 8
    remaining = holding(removed, [gone], [URL.format(5)])
    assert {re.sub(r"\d+", "N", name) for name in remaining} == {"ledger/final/N.parquet", "tombstones.parquet"}
    assert holding(removed, [], [URL.format(5)]) == set()
    assert whole(removed) == []
    assert fate(removed, gone) == [("dropped", "removed")]
    row = next(row for row in final(removed).to_pylist() if row["uid"] == gone)
    said = {name for name, value in row.items() if value not in (None, [])}
    assert said == {"source", "source_row", "uid", "fate", "reason", "step"}


def test_finished_rows_of_half_done_units_go_with_any_removal(made, tmp_path):
    """A caption run that was killed leaves them; they cost the work on them alone."""
    root = tmp_path / "run"
    shutil.copytree(made, root)
    half = Partial(root, "caption", "llava-00000", "0" * 64)
    half.add(pa.table({"uid": pa.array([uid(5)], pa.binary(16)), "text": ["gone"]}))
    remove(root, url=URL.format(5))
    assert not (root / ".partial").exists()
    assert whole(root) == []


def test_selectors_that_have_a_tombstone_change_nothing(removed):
    before = contents(removed)
    chosen = [selector("url", URL.format(5)), selector("uid", uid(5).hex())]  # the URL's tombstone says the uid
    assert remove_rows(removed, recipe_of_run(removed), Runtime(), chosen) == Outcome(
        dict.fromkeys(chosen, 0), tuple(chosen)
    )
    assert contents(removed) == before


def test_each_manifest_names_the_one_before_the_removal(removed, made):
    for stage, digest in digests(made).items():
        manifest = Manifest.read(removed / "manifests" / f"{stage}.json")
        assert manifest.digest != digest
        assert manifest.parent == digest
        assert manifest.recipe_digest == Manifest.read(made / "manifests" / f"{stage}.json").recipe_digest
    record = read_json(removed / "manifests" / "removals" / "0001.json")
    changed = {stage: {"before": digest, "after": digests(removed)[stage]} for stage, digest in digests(made).items()}
    assert record["stages"] == changed
    assert record["selectors"] == [{"kind": "url", "value_sha256": value_digest("pictures.test/5.jpg"), "uids": 1}]
    assert record["taken_out"]["pairs/*.tar"] == 1
    assert (record["rows"], record["uids"], record["promote_duplicates"]) == (1, 1, False)


def test_rows_on_their_way_between_groupings_go(run):
    """What a killed run has split holds uids, and tables that it planned URLs: it begins anew."""
    folder = run / ".shuffle" / "fetch_plan"
    folder.mkdir(parents=True)
    (folder / "0.slices").write_bytes(uid(5))
    remove(run, url=URL.format(5))
    assert not (run / ".shuffle").exists()


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
    said.add("ledger/first/00000.parquet")  # its place is one that is gone now
    assert data - said <= holds
    assert {"pairs/00001.tar", "pairs/00002.parquet", "scores/00001.parquet", "ledger/select/00001.parquet"} <= set(
        old
    ) - data
    packed = sorted(name.removeprefix("codes/pretrain/") for name in data if name.startswith("codes/pretrain/"))
    assert packed == ["00001.index.json", "00001.tar", "index.parquet"]  # one of the two shards, and where its rows lie


@pytest.mark.parametrize("kind", ["url", "host", "uid", "sha256", "phash", *DIGESTS, "list"])
def test_every_kind_of_selector(run, tmp_path, kind):
    gone = uid(7)
    found = picture_of(run, gone)
    values = {"url": "HTTPS://PICTURES.test:443/7.jpg#top", "host": "Pictures.TEST", "uid": gone.hex().upper()}
    values |= {"sha256": found["sha256"].hex(), "phash": f"{found['phash']:016x}"}
    values |= {kind: pair_of(run, gone)[kind] for kind in DIGESTS}
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
    canonical |= {kind: values[kind] for kind in ("sha256", "phash", *DIGESTS)}
    assert row["value_sha256"] == value_digest(canonical["url" if kind == "list" else kind])
    assert whole(run) == []
    before = contents(run)
    again = remove(run, lists=[tmp_path / "gone.csv"]) if kind == "list" else remove(run, **{kind: values[kind]})
    assert (again.record, len(again.known)) == ("", len(again.found))
    assert contents(run) == before


def test_every_row_of_a_uid_goes_and_rows_that_were_dropped_go_too(run):
    small = "http://pictures.test/30.jpg"  # dropped at select, for its size
    done = remove(run, url=[URL.format(0), small])
    assert (done.rows, done.uids) == (3, 2)
    assert done.found == {selector("url", URL.format(0)): 1, selector("url", small): 1}
    assert fate(run, uid(0)) == [("dropped", "removed")] * 2
    assert fate(run, uid_of(small, "claims to be small")) == [("dropped", "removed")]
    ledgers = {TOMBSTONES, *(f"ledger/final/0000{number}.parquet" for number in range(9))}
    assert holding(run, [uid(0)], [URL.format(0), small]) <= ledgers
    assert whole(run) == []


def test_nothing_found_leaves_a_tombstone(run):
    before = digests(run)
    done = remove(run, url="http://elsewhere.test/1.jpg", host="elsewhere.test")
    assert (done.rows, set(done.found.values())) == (0, {0})
    assert digests(run) == before
    assert read_tombstones(run).table["uid"].null_count == 2
    assert whole(run) == []


@pytest.mark.parametrize("moment", [0, 3, 30, 45, 60])
def test_a_kill_loses_nothing_and_the_same_command_finishes(run, removed_two, monkeypatch, moment):
    before = contents(run)
    interrupted(run, monkeypatch, moment)
    if (run / ".removal" / "removal.json").exists():
        assert ".removal/removal.json" in {finding.path for finding in whole(run)}
    else:
        assert {name: data for name, data in contents(run).items() if not name.startswith(".")} == before
    remove(run, url=[URL.format(5), URL.format(3)])
    assert contents(run) == contents(removed_two)
    assert not (run / ".removal").exists()
    assert whole(run) == []


def kill(*_):
    """Stand in for the moment at which all new files are whole and none is in place."""
    raise KeyboardInterrupt


def test_a_removal_that_was_killed_is_not_forgotten_for_another(run, removed_run, removed_two, monkeypatch, capsys):
    """One after the other is both at once, but for the records of removals and what names them."""
    remove(removed_run, url=URL.format(3))
    monkeypatch.setattr("pipeline.maintenance.remove.run.commit", kill)
    with pytest.raises(KeyboardInterrupt):
        remove(run, url=URL.format(5))
    monkeypatch.undo()
    remove(run, url=URL.format(3))
    assert f"{run}: first ended a removal that was interrupted: 1 rows of 1 uids" in capsys.readouterr().err
    one_by_one, at_once = contents(removed_run), contents(removed_two)
    assert contents(run) == one_by_one
    others = {name for name, data in one_by_one.items() if at_once.get(name) != data}
    assert {re.sub(r"\d+", "N", name) for name in others} == {
        *(f"manifests/{stage}.json" for stage in STAGE_STEPS),
        "manifests/digests.json",
        "manifests/removals/N.json",
        "manifests/journal/remove/N.json",
    }


def test_what_was_asked_for_and_cannot_be_read_gives_way_to_what_is_asked_now(run, capsys):
    (run / ASKED).parent.mkdir(parents=True, exist_ok=True)
    (run / ASKED).write_text("{")
    assert remove(run, url="http://elsewhere.test/1.jpg").rows == 0
    assert "cannot be read: what is asked for now is done instead" in capsys.readouterr().err
    assert not (run / ASKED).exists()


NEEDED = (
    "manifests/journal/score.parquet",  # without it the scores would keep the row
    "tombstones.parquet",  # without them what was removed before would come back
    "manifests/plan/fetch/00000.parquet",
    "codes/pretrain/00000.index.json",
)


def test_nothing_is_removed_from_a_run_that_lacks_a_file(removed_run):
    for name in NEEDED:
        data = (removed_run / name).read_bytes()
        (removed_run / name).unlink()
        before = contents(removed_run)
        with pytest.raises(DamagedFileError, match=f"{removed_run}: {name} is missing"):
            remove(removed_run, url=URL.format(6))
        assert contents(removed_run) == before
        (removed_run / name).write_bytes(data)


def test_damage_does_not_pass_for_whole(run):
    path = run / "captions" / "llava-00000.parquet"
    data = path.read_bytes().replace(b"ARROW:schema", b"ARROW:scheme", 1)
    assert data != path.read_bytes()
    path.write_bytes(data)
    before = contents(run)
    with pytest.raises(DamagedFileError, match=f"{path} is damaged: it has not the sha256 that its journal names"):
        remove(run, url=URL.format(5))
    assert contents(run) == before
    assert not (run / ASKED).exists()  # it cannot be done, so nothing goes on with it
