"""The demo's measures against truth, on tables small enough to count by hand."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline.evaluation.ground_truth import (
    TruthError,
    alignment_auc,
    fault_agreement,
    filter_quality,
    group_check,
    joined,
    mark_recall,
    quality_table,
    summary,
    untested,
)


def row(target: str | None, reason: str | None, **more: Any) -> dict[str, Any]:
    """Return a joined row: what was planted, and the reason that came out (None: kept)."""
    base = {
        "kind": target or "clean",
        "picture": "met/1",
        "target": target,
        "exact": False,
        "group": None,
        "matched": None,
        "alpha": None,
        "tiled": None,
    }
    return {**base, "fate": "dropped" if reason else "kept", "reason": reason, **more}


def test_precision_and_recall_of_a_filter() -> None:
    rows = [
        *[row("watermark", "watermark")] * 3,
        row("watermark", None),
        *[row("watermark", "similarity")] * 2,  # dropped by another rule: neither caught nor missed
        row(None, "watermark"),  # dropped but clean
        row("language", "watermark"),  # its picture is clean
        *[row(None, None)] * 5,
    ]
    found = {one.filter: one for one in filter_quality(rows)}
    one = found["watermark"]
    assert (one.planted, one.caught, one.missed, one.elsewhere, one.wrong) == (6, 3, 1, 2, 2)
    assert one.precision == 3 / 5
    assert one.recall == 3 / 4
    assert (found["language"].elsewhere, found["language"].precision, found["language"].recall) == (1, None, None)


def test_rows_decided_by_an_input_value_say_nothing_of_the_model() -> None:
    rows = [row("watermark", "watermark", exact=True)] * 3 + [row("watermark", None)]
    assert [(one.planted, one.caught, one.missed, one.wrong) for one in filter_quality(rows)] == [(1, 0, 1, 0)]
    assert [(one.planted, one.caught) for one in filter_quality(rows[:3])] == [(3, 3)]


def test_faults_are_no_filters_and_judged_filters_come_first() -> None:
    rows = [row("http_404", "http_404", exact=True), row("missing_value", "missing_value", exact=True)]
    rows += [row("size", "size", exact=True), row("near_duplicate", None, group="a"), row("language", "language")]
    assert [one.filter for one in filter_quality(rows)] == ["language", "near_duplicate", "size"]
    assert quality_table(rows).column_names == [
        "filter",
        "planted",
        "caught",
        "missed",
        "elsewhere",
        "wrong",
        "precision",
        "recall",
    ]


def test_near_duplicates_count_by_group_whoever_survives() -> None:
    near = "near_duplicate"
    rows = [
        row(None, near, group="a"),
        row(near, None, group="a"),  # the copy survived: one caught
        row(None, None, group="b"),
        row(near, near, group="b"),
        row(near, None, group="b"),  # two survived: one caught, one missed
        row(None, "language", group="c"),
        row(near, None, group="c"),  # one came as far: nothing to catch
        row(None, near, group="d"),
        row(near, near, group="d"),  # none survived: one too many dropped
        row(None, near),  # no group at all
        row(None, None, group="e", kind="repeated"),
        row("exact_duplicate", "exact_duplicate", exact=True, group="e", kind="exact-duplicate"),
    ]
    one = next(one for one in filter_quality(rows) if one.filter == near)
    assert (one.planted, one.caught, one.missed, one.elsewhere, one.wrong) == (5, 3, 1, 1, 2)
    assert [
        (group.group, group.rows, group.kept, group.near_duplicate, group.elsewhere) for group in group_check(rows)
    ] == [
        ("a", 2, 1, 1, 0),
        ("b", 3, 2, 1, 0),
        ("c", 2, 1, 0, 1),
        ("d", 2, 0, 2, 0),
    ]


def test_agreement_names_what_came_instead() -> None:
    rows = [row("timeout", "timeout", exact=True, kind="timeout")] * 2 + [
        row("timeout", "connection", exact=True, kind="timeout")
    ]
    rows += [row("size", None, exact=True, kind="small"), row("language", None)]
    assert [(one.kind, one.reason, one.rows, one.right, one.others) for one in fault_agreement(rows)] == [
        ("small", "size", 1, 0, {"kept": 1}),
        ("timeout", "timeout", 3, 2, {"connection": 1}),
    ]


def test_alignment_auc_by_hand() -> None:
    good = [row(None, None, matched=True, conse=value, conse_origin="conse") for value in (0.9, 0.5, 0.2)]
    bad = [row("similarity", None, matched=False, conse=value, conse_origin="conse") for value in (0.5, 0.1)]
    other = [
        row(None, None, matched=True, conse=0.0, conse_origin="input"),
        row("language", None, matched=True, conse=0.0, conse_origin="conse"),
        row(None, None, matched=True, conse=None, conse_origin=None),
    ]
    # pairs won: 0.9 twice; 0.5 half and once; 0.2 once: 4.5 of 6
    assert alignment_auc(good + bad + other, "conse") == (4.5 / 6, 3, 2)
    assert alignment_auc(good, "conse") is None
    assert alignment_auc(good + bad, "similarity") is None
    assert alignment_auc(good + bad, "conse", source="openmoji") is None


def test_marks_by_strength_and_rules_without_truth() -> None:
    marks = [row("watermark", "watermark", alpha=90, tiled=True), row("watermark", None, alpha=90, tiled=True)]
    marks += [row("watermark", "language", alpha=200, tiled=False), row(None, "aesthetic"), row(None, "aesthetic")]
    assert mark_recall(marks) == [(90, True, 1, 2)]
    assert untested(marks) == {"aesthetic": 2, "language": 1}


def tables() -> tuple[pa.Table, pa.Table]:
    truth = [
        {"source": "part-0.parquet", "source_row": n, "text": None, **row(target, None, exact=exact)}
        for n, (target, exact) in enumerate([(None, False), ("http_404", True), ("watermark", False)])
    ]
    final = [
        {"source": "input/part-0.parquet", "source_row": n, "fate": "dropped" if reason else "kept", "reason": reason}
        for n, reason in enumerate([None, "http_404", "watermark"])
    ]
    return pa.Table.from_pylist(final), pa.Table.from_pylist(truth).drop_columns(["fate", "reason"])


def test_rows_meet_by_file_name_and_number() -> None:
    final, truth = tables()
    assert [(one["target"], one["reason"]) for one in joined(final, truth)] == [
        (None, None),
        ("http_404", "http_404"),
        ("watermark", "watermark"),
    ]
    with pytest.raises(TruthError, match=r"row 2 of part-0\.parquet has no fate"):
        joined(final.slice(0, 2), truth)


def test_summary_says_it_in_words() -> None:
    said = summary(*tables())
    assert "watermark               1       1       0          0      0        100%    100%" in said
    assert "planted faults with the reason that the design names: 1 of 1" in said
