"""The numbers of a run against what was planted, on eleven rows whose fates are written here."""

import pytest

from pipeline.evaluation.ground_truth import Agreement, Quality
from pipeline.report.planted import Alignment, MarkRecall, Planted, compare


def row(fate="kept", reason=None, **planted):
    names = ("target", "group", "matched", "alpha", "tiled")
    return {
        **dict.fromkeys(names),
        **{"kind": "clean", "picture": "met/1", "exact": False, "fate": fate, "reason": reason},
        **planted,
    }


def dropped(reason, **planted):
    return row("dropped", reason, **planted)


ROWS = [
    row(group="g1", matched=True, similarity=0.4, similarity_origin="clip"),
    dropped("near_duplicate", group="g1", target="near_duplicate", kind="near"),
    row(group="g2", matched=True, similarity=0.2, similarity_origin="clip"),
    row(group="g2", target="near_duplicate", kind="near"),
    dropped("dns", group="g3", target="dns", kind="no-host", exact=True),
    dropped("timeout", target="dns", kind="no-host", exact=True),
    dropped("watermark", target="watermark", kind="mark", alpha=40, tiled=True),
    row(target="watermark", kind="mark", alpha=40, tiled=True),
    dropped("similarity", target="watermark", kind="mark", alpha=90, tiled=False),
    dropped("similarity", target="similarity", matched=False, similarity=0.3, similarity_origin="clip"),
    row(target="similarity", matched=False, similarity=0.1, similarity_origin="input"),
]


def test_every_number_of_the_section():
    planted = compare(ROWS)
    assert planted.qualities == (
        Quality("watermark", planted=3, caught=1, missed=1, elsewhere=1, wrong=0),
        Quality("similarity", planted=2, caught=1, missed=1, elsewhere=0, wrong=1),
        Quality("near_duplicate", planted=2, caught=1, missed=1, elsewhere=0, wrong=0),
    )
    assert planted.faults == (Agreement("no-host", "dns", rows=2, right=1, others={"timeout": 1}),)
    assert (planted.right, planted.certain) == (1, 2)
    assert planted.marks == (MarkRecall(alpha=40, tiled=True, caught=1, rows=2),)
    # g3 never came: of the other two groups one has a single survivor
    assert (planted.groups, planted.single_survivors) == (2, 1)
    # own words 0.4 and 0.2 against swapped 0.3; the input's own 0.1 says nothing; no row has `conse`
    assert planted.alignments == (Alignment("similarity", 0.5, matched=2, swapped=1),)


def test_no_rows_give_empty_numbers():
    assert compare([]) == Planted()
    assert (Planted().right, Planted().certain) == (0, 0)


def test_numbers_of_a_report_cannot_be_changed():
    with pytest.raises(AttributeError):
        compare([]).groups = 3
