"""pipeline/maintenance/verify.py: a run and a bare folder of shards are told apart; anything else is refused."""

import dataclasses
import itertools
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manifests.shards import write_shard
from pipeline.cli import app
from pipeline.maintenance.verify import look
from tests.support.code_shards import row_of, tokenizer, write_codes
from tests.support.damages import DAMAGES
from tests.support.keep_runs import one_of_each_kind
from tests.support.object_store import in_memory, put_run
from tokenize_shards.samples import sample_parts


def test_a_run_is_verified_with_its_removals(made, removed):
    report = look(made, 1, quiet=True)
    assert report.findings == ()
    assert not any("removed" in line for line in report.said)
    report = look(removed, 1, quiet=True)
    assert report.findings == ()
    assert [line.partition(",")[0] for line in report.said if line.startswith("removed:")] == ["removed: 1 uids"]


def test_what_came_back_is_found(made, removed_run):
    shutil.copy(made / "scores" / "00000.parquet", removed_run / "scores" / "00000.parquet")
    kinds = {(finding.path, finding.kind) for finding in look(removed_run, 1, quiet=True).wrong}
    assert kinds == {("scores/00000.parquet", "damaged"), ("scores/00000.parquet", "removed")}


def test_a_bare_folder_is_verified_and_looked_into_where_asked(tmp_path, capsys):
    write_codes(tmp_path, (2, 1))
    folder = tmp_path / "codes" / "pretrain"
    plain = look(folder, 1)
    assert (plain.findings, any("looked into" in line for line in plain.said)) == ((), False)
    assert "  verify   " in capsys.readouterr().err
    report = look(folder, 1, quiet=True, samples=True)
    assert (report.findings, report.said[-1]) == ((), "samples: 3 in 2 code shards looked into")
    assert capsys.readouterr().err == ""


def test_a_folder_that_is_neither_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere': no such folder; wanted a run folder or a folder of shards"):
        look(tmp_path / "nowhere", 1)
    with pytest.raises(ValueError, match=r"neither a run folder \(no manifests/\) nor a folder of shards"):
        look(tmp_path, 1)


def test_the_option_of_verify(tmp_path):
    write_codes(tmp_path, (2, 1))
    bare = tmp_path / "codes" / "pretrain"
    done = CliRunner().invoke(app, ["verify", str(bare), "--samples"])
    assert (done.exit_code, "samples: 3 in 2 code shards looked into" in done.output) == (0, True), done.output
    parts = {**sample_parts(row_of(9), "pretrain", tokenizer(), "parent"), "json": b"{"}
    write_shard(bare / "00002.tar", [(f"{9:032x}", parts)], index=True)
    assert CliRunner().invoke(app, ["verify", str(bare)]).exit_code == 0
    done = CliRunner().invoke(app, ["verify", str(bare), "--samples"])
    assert (done.exit_code, "damaged  00002.tar: sample 0000" in done.output) == (1, True), done.output


def test_of_a_run_in_a_store_the_same_is_found_as_on_a_disk(removed_run):
    paths = [path for path in one_of_each_kind(removed_run) if path.name not in (".run-token", "recipe.toml")]
    for path, damage in zip(paths, itertools.cycle([*DAMAGES.values(), Path.unlink])):
        damage(path)
    (removed_run / "pairs" / "mine.txt").write_text("?")
    stored = put_run(removed_run, in_memory())
    found, remote = look(removed_run, 2, quiet=True), look(stored, 2, quiet=True)
    assert len(found.wrong) > 20
    assert said(remote, stored) == said(found, removed_run)
    assert (remote.files, remote.bytes, remote.said) == (found.files, found.bytes, found.said)


def test_a_bare_folder_in_a_store_is_looked_into(tmp_path):
    write_codes(tmp_path, (2, 1))
    report = look(put_run(tmp_path / "codes", in_memory()), 1, quiet=True, samples=True)
    assert (report.findings, report.said[-1]) == ((), "samples: 3 in 2 code shards looked into")


def said(report, root):
    return [dataclasses.replace(one, says=one.says.replace(str(root), "RUN")) for one in report.findings]
