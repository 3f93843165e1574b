"""Rows come to readers behind a leg as slices or, from Beam's grouping, as a file a part: the same rows, moved once."""

import pytest

from manifests.files import FormatError
from manifests.journal import records_of
from pipeline.execution.delivered import Rows
from pipeline.execution.shuffle import here
from tests.support.grouping import as_on_a_cluster, on_beam
from tests.support.shuffles import SPREAD, ByNumber, Numbers
from tests.support.stage_steps import recipe_at


@pytest.fixture
def step(tmp_path):
    (tmp_path / SPREAD).write_text("3")
    return Numbers(recipe_at(tmp_path), tmp_path)


def rows_of(step, parts):
    """Return (number, file) of each part's rows, in order."""
    found = Rows.of(Numbers, step.root)
    tables = [found.of_part(part).to_pydict() for part in range(parts)]
    return [sorted(zip(table["number"], table["home"], strict=True)) for table in tables]


def moved(step):
    """Return how many units have records: of the leg, and of the end."""
    folder = Numbers.where(step.root)
    return len(records_of(folder, ByNumber.name)), len(records_of(folder, Numbers.name))


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (1, [[(5, 0), (5, 0), (7, 0), (7, 2), (7, 2), (9, 2)]]),
        (3, [[(9, 2)], [(7, 0), (7, 2), (7, 2)], [(5, 0), (5, 0)]]),
        (4, [[], [(5, 0), (5, 0), (9, 2)], [], [(7, 0), (7, 2), (7, 2)]]),
    ],
)
def test_the_same_rows_of_each_part_either_way(step, tmp_path, parts, wanted):
    """Numbers go to parts by their rest; some parts have none."""
    (tmp_path / SPREAD).write_text(str(parts))
    step.make()
    assert moved(step) == (3, 0)
    assert rows_of(step, parts) == wanted
    step.leg.journal.forget_others(())
    with as_on_a_cluster():
        step.make(on_beam, grouped=True)
    assert moved(step) == (0, parts)
    assert rows_of(step, parts) == wanted


@pytest.mark.parametrize("first_grouped", [True, False])
def test_what_was_moved_in_one_way_is_not_moved_again_in_the_other(step, first_grouped):
    def nobody(one, units):
        raise AssertionError(f"{one.name} again")

    with as_on_a_cluster():
        step.make(on_beam if first_grouped else here, grouped=first_grouped)
        before = moved(step)
        step.make(nobody, grouped=not first_grouped)
    assert moved(step) == before == ((0, 3) if first_grouped else (3, 0))


@pytest.mark.parametrize("grouped", [True, False])
def test_what_a_killed_attempt_left_is_not_read_beside_what_is_moved_in_the_other_way(step, grouped):
    with as_on_a_cluster():
        step.make(here if grouped else on_beam, grouped=not grouped)
        wanted, killed = rows_of(step, 3), step.leg if grouped else step
        (killed.journal.folder / "00001.json").unlink()
        step.make(on_beam if grouped else here, grouped=grouped)
    assert moved(step) == ((0, 3) if grouped else (3, 0))
    assert rows_of(step, 3) == wanted


def test_little_is_moved_in_the_driver_on_a_cluster_too(step):
    """Six rows: the leg says that it is small."""
    did = []

    def do(one, units):
        did.append((one.name, len(units)))
        here(one, units)

    step.make(do, grouped=True)
    assert did == [("counts_split", 3)]


def test_rows_of_another_plan_go(step, tmp_path):
    """Two parts in place of three."""
    with as_on_a_cluster():
        step.make(on_beam, grouped=True)
        (tmp_path / SPREAD).write_text("2")
        step.make(on_beam, grouped=True)
    assert moved(step) == (0, 2)
    assert rows_of(step, 2) == [[], [(5, 0), (5, 0), (7, 0), (7, 2), (7, 2), (9, 2)]]
    (Numbers.where(tmp_path) / Numbers.name / "00001.slices").write_bytes(b"no")
    with pytest.raises(FormatError, match=r"00001\.slices"):
        Rows.of(Numbers, tmp_path).of_part(1)


def test_each_attempt_writes_the_same_bytes(step):
    with as_on_a_cluster():
        step.make(on_beam, grouped=True)
    files = sorted((Numbers.where(step.root) / Numbers.name).iterdir())
    before, rows = [path.read_bytes() for path in files], Rows.of(Numbers, step.root).of_part(1)
    unit = step.units()[1]
    for order in ([2, 0, 1], [1, 2, 0]):
        step.finish(unit, rows.take(order))
        assert [path.read_bytes() for path in files] == before
