"""Other rules at select: what is known of rows that were let in, and of rows whose values were not kept."""

import pyarrow as pa
import pytest

from filters.base import build_filter
from filters.verdicts import PASSES
from manifests.files import write_table
from pipeline.analysis.reselect import IN, MAY, OUT, Reselect, stricter
from pipeline.analysis.stored_run import HELD, Shard

REASONS = ("missing_value", "size", "similarity", "text", "bad_url")
ROWS = [  # reason now, width, height, similarity
    (None, 100, 100, 0.35),
    (None, 100, 100, 0.5),
    ("size", 50, 50, 0.5),
    ("similarity", 100, 100, 0.25),
    ("missing_value", 100, 100, None),
    ("bad_url", 100, 100, 0.5),
]


def size(side: int):
    return build_filter({"use": "size", "min_side": side})


def similarity(bound: float):
    return build_filter({"use": "similarity", "column": "similarity", "min": bound})


@pytest.fixture
def shard(tmp_path):
    """Return a function: the shard whose ledger holds these columns of rows that a rule dropped."""

    def write(*held: str) -> Shard:
        names = ("width", "height", "similarity")
        rows = [
            (reason, *(v if reason is None or name in held else None for name, v in zip(names, values, strict=True)))
            for reason, *values in ROWS
        ]
        kinds = (pa.string(), pa.int32(), pa.int32(), pa.float32())
        arrays = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
        table = pa.table(arrays, names=["reason", *names])
        write_table(tmp_path / "s.parquet", table.replace_schema_metadata({HELD: ",".join(held).encode()}))
        return Shard("s", len(ROWS), tmp_path / "s.parquet", tmp_path / "none")

    return write


def asked(shard: Shard, then, fillable=frozenset()):
    selected = Reselect((size(64), similarity(0.3)), tuple(then), fillable, REASONS).evaluate(shard)
    names = [None if code == PASSES else REASONS[code] for code in selected.code]
    return list(zip(names, selected.state.tolist(), strict=True))


def test_a_stricter_rule_drops_rows_that_were_in_and_none_comes_in(shard):
    assert asked(shard(), (size(64), similarity(0.4))) == [
        ("similarity", OUT),  # 0.35
        (None, IN),
        ("size", OUT),
        ("similarity", OUT),  # failed 0.3, so it fails 0.4, whatever its value
        ("missing_value", OUT),
        ("bad_url", OUT),
    ]


def test_a_looser_rule_might_let_rows_in_whose_values_are_not_held(shard):
    states = [state for _, state in asked(shard(), (size(64), similarity(0.2)))]
    assert states == [IN, IN, OUT, MAY, OUT, OUT]


def test_held_values_say_for_certain(shard):
    states = asked(shard("width", "height", "similarity"), (size(64), similarity(0.2)))
    assert states[2:5] == [("size", OUT), ("similarity", IN), ("missing_value", OUT)]  # 0.25 is enough now
    assert asked(shard("width", "height", "similarity"), (size(40), similarity(0.4)))[2] == ("size", IN)


def test_a_rule_less_lets_all_of_its_rows_in_that_no_other_rule_stops(shard):
    states = [state for _, state in asked(shard(), (size(64),))]
    assert states[:4] == [IN, IN, OUT, IN]  # the fourth had passed size before it failed similarity


def test_select_knows_whether_its_rules_changed():
    assert not Reselect((size(64),), (size(64),), frozenset(), REASONS).changed
    assert Reselect((size(64),), (size(65),), frozenset(), REASONS).changed


@pytest.mark.parametrize(
    ("loose", "strict", "expected"),
    [
        (size(64), size(65), True),
        (size(65), size(64), False),
        (size(64), similarity(0.5), False),
        (build_filter({"use": "aspect", "max": 3.0}), build_filter({"use": "aspect", "max": 2.0}), True),
        (build_filter({"use": "aspect", "max": 2.0}), build_filter({"use": "aspect", "max": 3.0}), False),
    ],
)
def test_stricter(loose, strict, expected):
    assert stricter(loose, strict) is expected
