"""A shuffle around Beam's GroupByKey writes the bytes that it writes with files of slices."""

import pyarrow as pa

from manifests.layout import SCRATCH
from pipeline.execution.grouped import Spread, received
from pipeline.execution.shuffle import table_of
from tests.support.grouping import as_on_a_cluster, on_beam
from tests.support.shuffles import SPREAD, ByNumber, Counts
from tests.support.stage_steps import recipe_at


def test_a_message_for_each_part_that_has_rows(tmp_path):
    """5, 7, 5 in two parts: all odd."""
    (tmp_path / SPREAD).write_text("2")
    leg = ByNumber(recipe_at(tmp_path), tmp_path)
    ((part, message),) = Spread(leg, leg.units()).process((0, ()))
    assert part == 1
    (one, other) = received([(1, b""), (1, message), (0, b"")], [ByNumber, ByNumber])
    assert list(one) == []
    for _ in range(2):  # as often as one likes
        assert table_of(other, ByNumber)["number"].to_pylist() == [5, 7, 5]
    assert table_of(one, ByNumber).equals(pa.table({"number": [], "home": []}, schema=ByNumber.carried))


def test_rows_for_a_part_that_no_unit_has_go_nowhere(tmp_path):
    """A leg may send more than one of its readers wants."""
    (tmp_path / SPREAD).write_text("2")
    leg = ByNumber(recipe_at(tmp_path), tmp_path)
    assert list(Spread(leg, leg.units()).process((7, ()))) == []


def test_beams_grouping_gives_the_bytes_of_slices(tmp_path):
    """What a cluster's runner is handed, run by Beam's local one."""
    bytes_of = {}
    for name in ("slices", "beam"):
        root = tmp_path / name
        root.mkdir()
        (root / SPREAD).write_text("3")
        step = Counts(recipe_at(root), root)
        if name == "beam":
            with as_on_a_cluster():
                on_beam(step, step.units())
            assert not (root / SCRATCH).exists()
        else:
            step.make()
        assert [step.journal.done(unit.name, unit.key) is not None for unit in step.units()] == [True] * 3
        bytes_of[name] = [path.read_bytes() for path in sorted((root / "counts").glob("*"))]
    assert len(bytes_of["beam"]) == 3
    assert bytes_of["beam"] == bytes_of["slices"]
