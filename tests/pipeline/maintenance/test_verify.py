"""pipeline/maintenance/verify.py: a run and a bare folder of shards are told apart; anything else is refused."""

import shutil

import pytest
from typer.testing import CliRunner

from manifests.shards import write_shard
from pipeline.cli import app
from pipeline.maintenance.verify import look
from tests.support.code_shards import row_of, tokenizer, write_codes
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
