"""The shared judgement: verdicts equal the row-wise rule of the design, and each cluster has one survivor by a total
order."""

import hashlib
import random

import numpy as np
import pyarrow as pa
import pytest

from filters.survivors import Candidates, halves
from filters.verdicts import PASSES, first_failure, marked, names_of, reasons_of, verdicts_of
from manifests.schema import COLUMNS
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.rules import build_rules
from pipeline.steps.decide import tier_lists

RECIPE = {
    "filter": {"rules": [{"use": "size", "min_side": 64}, {"use": "similarity", "column": "similarity", "min": 0.3}]},
    "score": {
        "use": ["clip_similarity", "aesthetic_v2"],
        "clip": {"weights": "stand-in"},
        "aesthetic_v2": {"weights": "stand-in"},
    },
    "tier": {
        "broad": {"size": 64, "rules": [{"use": "aspect", "max": 2.0}]},
        "fine": {"size": 64, "rules": [{"use": "aesthetic", "min": 5.0, "model": "v2"}]},
    },
}


def uid(n: int) -> bytes:
    return hashlib.md5(str(n).encode()).digest()


def batch_of(rows: int, seed: int = 0) -> pa.RecordBatch:
    draw = random.Random(seed)

    def some(values):
        return [draw.choice([None, *values]) for _ in range(rows)]

    columns = {
        "uid": [uid(n) for n in range(rows)],
        "width": some([50, 64, 100, 200, 300]),
        "height": some([64, 100, 150]),
        "similarity": some([0.2, 0.3, 0.4]),
        "aesthetic_v2": some([4.0, 5.0, 6.0]),
    }
    arrays = [pa.array(values, COLUMNS[name].type) for name, values in columns.items()]
    clusters = pa.array([uid(draw.randrange(rows // 3)) for _ in range(rows)], pa.binary(16))
    return pa.RecordBatch.from_arrays([*arrays, clusters], names=[*columns, "cluster"])


def test_verdicts_are_those_of_the_rules_asked_one_by_one():
    rules = build_rules(parse_recipe(RECIPE))
    batch = batch_of(500)
    got = verdicts_of(rules, batch)
    reasons = reasons_of(rules)
    everywhere, *tiers = (
        names_of(first_failure(some, batch, reasons), reasons).to_pylist()
        for some in (rules.everywhere, *rules.tiers.values())
    )
    for row in range(batch.num_rows):
        member = [k for k, failures in enumerate(tiers) if failures[row] is None]
        wanted = everywhere[row] or (None if member else tiers[0][row])
        assert (None if got.code[row] == PASSES else reasons[got.code[row]]) == wanted
        assert int(got.tiers[row]) == sum(1 << k for k in member)
        assert got.rank[row] == max(member, default=-1)
    assert {reasons[code] for code in got.code if code != PASSES} == {"missing_value", "size", "similarity", "aspect"}


def test_rules_that_are_settled_are_not_asked():
    rules = build_rules(parse_recipe(RECIPE))
    batch = batch_of(200)
    assert "size" not in {
        reasons_of(rules)[code] for code in verdicts_of(rules, batch, frozenset({"size"})).code if code != PASSES
    }


def test_each_cluster_has_one_survivor_and_it_is_the_best_in_any_order():
    batch = batch_of(300, 1)
    rank = np.array([n % 2 for n in range(300)], np.int16)
    rows = batch.to_pylist()

    def worth(n):
        row = rows[n]
        score = -1.0 if row["aesthetic_v2"] is None else row["aesthetic_v2"]
        pixels = -1 if None in (row["width"], row["height"]) else row["width"] * row["height"]
        return (-rank[n], -score, -pixels, row["uid"])

    best = {
        min((n for n in range(300) if rows[n]["cluster"] == cluster), key=worth)
        for cluster in {row["cluster"] for row in rows}
    }
    assert set(np.flatnonzero(~Candidates.of(batch, rank).losers())) == best
    order = np.random.default_rng(2).permutation(300)
    shuffled = Candidates.of(batch.take(pa.array(order)), rank[order]).losers()
    assert set(order[~shuffled]) == best


def test_nobody_contends():
    assert len(Candidates.of(batch_of(9).slice(0, 0), np.empty(0, np.int16)).losers()) == 0


def test_halves_sort_as_the_bytes_do():
    raw = [uid(n) for n in range(50)]
    made = halves(pa.array(raw, pa.binary(16)).slice(3))
    assert [b"".join(int(half).to_bytes(8, "big") for half in row) for row in made] == raw[3:]
    assert (halves(pa.array(raw, pa.binary())) == halves(pa.array(raw, pa.binary(16)))).all()


@pytest.mark.parametrize(
    ("mark", "code", "wanted"),
    [
        (None, "passes", "passes"),
        ("placeholder", "passes", "placeholder"),
        ("in_eval_set", "size", "size"),  # the rules come first
        ("removed", "size", "removed"),  # but removed beats all
    ],
)
def test_marks_and_rules(mark, code, wanted):
    reasons = reasons_of(build_rules(parse_recipe(RECIPE)))
    given = np.array([PASSES if code == "passes" else reasons.index(code)], np.int16)
    got = marked(given, pa.array([mark], pa.string()), reasons)[0]
    assert ("passes" if got == PASSES else reasons[got]) == wanted


def test_tiers_of_kept_rows_alone():
    passed, kept = (
        pa.chunked_array([pa.array([3, 1, None, 2], pa.uint64())]),
        pa.chunked_array([pa.array([True, False, True, True])]),
    )
    assert tier_lists(passed, kept, ["a", "b"]).to_pylist() == [["a", "b"], [], [], ["b"]]
