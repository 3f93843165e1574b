"""pipeline/execution/planned.py: only records of what is planned now count."""

from dataclasses import replace

import pytest

from manifests.journal import records_of
from pipeline.execution.errors import RunFailed
from pipeline.execution.planned import ROUNDS, do_planned, need_planned
from pipeline.execution.shuffle import here
from tests.support import steps
from tests.support.supervised import RECIPE


def another_runs(step, units, names):
    """Let another run, of another recipe, write these shards."""
    for unit in units:
        if unit.name in names:
            here(step, [replace(unit, reads={"first": 900}, key="of another recipe")])


def test_shards_that_another_run_wrote_meanwhile_are_made_again(tmp_path, capsys):
    step = steps.Counting(RECIPE, tmp_path)
    units, asked = step.units(), []

    def do(step, pending):
        here(step, pending)
        asked.append([unit.name for unit in pending])
        another_runs(step, units, ["00001", "00004"] if len(asked) == 1 else [])

    here(step, units[:2])  # 00001 was done before, and written over while the others were done
    do_planned(step, units, units[2:], do)
    assert asked == [["00002", "00003", "00004", "00005"], ["00001", "00004"]]
    assert {record.shard: record.key for record in records_of(tmp_path, "counting")} == {
        unit.name: unit.key for unit in units
    }
    assert "the records of 2 shards, such as 00001, are not of this run" in capsys.readouterr().err


def test_a_folder_in_which_somebody_else_goes_on_writing_stops_the_run(tmp_path):
    step = steps.Counting(RECIPE, tmp_path)
    units, done = step.units(), []

    def do(step, pending):
        here(step, pending)
        done.append(len(pending))
        another_runs(step, units, ["00001"])

    with pytest.raises(
        RunFailed, match=r"counting: the records of 1 shards \(00001\) are not of this run.*end it, then"
    ):
        do_planned(step, units, units, do)
    assert done == [6, 1, 1][:ROUNDS]


def test_where_nothing_is_to_do_nothing_is_looked_at(tmp_path):
    step = steps.Counting(RECIPE, tmp_path)
    do_planned(step, step.units(), [], lambda step, pending: pytest.fail("nothing is pending"))


@pytest.mark.parametrize(("names", "wrong"), [([], ""), (["00003"], "00003"), (["new"], "new")])
def test_a_manifest_takes_the_planned_records_and_no_others(tmp_path, names, wrong):
    step = steps.Counting(RECIPE, tmp_path)
    units = step.units()
    here(step, units)
    another_runs(step, [*units, replace(units[0], name="new")], names)
    keys = {unit.name: unit.key for unit in units}
    if not wrong:
        need_planned("counting", records_of(tmp_path, "counting"), keys)
        with pytest.raises(RunFailed, match="00005"):
            need_planned("counting", records_of(tmp_path, "counting")[:-1], keys)
        return
    with pytest.raises(RunFailed, match=rf"\({wrong}\) are not of this run.*nothing of it is in a manifest"):
        need_planned("counting", records_of(tmp_path, "counting"), keys)
