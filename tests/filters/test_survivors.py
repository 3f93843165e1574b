"""Each cluster has one survivor by a total order, whatever the batches; codes say who lost."""

import numpy as np
import pyarrow as pa

from filters.survivors import Candidates, evaluate_rows, halves
from filters.verdicts import NEAR, PASSES, Verdicts, names_of, reasons_of, verdicts_of
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.rules import build_rules
from tests.support.judged_rows import RECIPE, batch_of, uid


def facts_of(rows: list[dict]) -> pa.RecordBatch:
    """Return facts: every row 100 x 100 and similar enough unless it says otherwise."""
    common = {"width": 100, "height": 100, "similarity": 0.5, "aesthetic_v2": 4.0, "mark": None, "cluster": None}
    kinds = {"uid": pa.binary(16), "cluster": pa.binary(16), "mark": pa.string(), "aesthetic_v2": pa.float32()}
    full = [{"row": n, "uid": uid(n), **common, **row} for n, row in enumerate(rows)]
    arrays = [pa.array([row[name] for row in full], kinds.get(name)) for name in full[0]]
    return pa.RecordBatch.from_arrays(arrays, names=list(full[0]))


def verdicts(facts, rules, settled=frozenset()) -> tuple[np.ndarray, Verdicts]:
    """Return (numbers of the rows, their verdicts with twins settled), as decide puts the two halves together."""
    evaluated = [(batch, evaluate_rows(batch, rules, settled)) for batch in facts]
    if not evaluated:
        return np.empty(0, np.int64), Verdicts(np.empty(0, np.int16), np.empty(0, np.uint64))
    rivals = []
    for batch, one in evaluated:
        full = np.zeros(batch.num_rows, bool)
        full[one.rivals] = True
        rivals.append(full)
    code = np.concatenate([one.verdicts.code for _, one in evaluated])
    places = np.flatnonzero(np.concatenate(rivals))
    code[places[Candidates.join([one.candidates for _, one in evaluated]).losers()]] = reasons_of(rules).index(NEAR)
    rows = np.concatenate([batch["row"].to_numpy() for batch, _ in evaluated])
    return rows, Verdicts(code, np.concatenate([one.verdicts.tiers for _, one in evaluated]))


def told(facts: list[pa.RecordBatch], settled: frozenset[str] = frozenset()) -> dict[int, str | None]:
    rules = build_rules(parse_recipe(RECIPE))
    numbers, result = verdicts(facts, rules, settled)
    names = names_of(result.code, reasons_of(rules)).to_pylist()
    return dict(zip(numbers.tolist(), names, strict=True))


def test_the_best_that_passes_survives_and_marked_rows_do_not_contend():
    twins = uid(99)
    rows = [
        {"cluster": twins},  # passes, and so does the next, which is in the better tier
        {"cluster": twins, "aesthetic_v2": 5.0},
        {"cluster": twins, "aesthetic_v2": 6.0, "similarity": 0.1},  # the best of all, but it fails a rule
        {"cluster": twins, "aesthetic_v2": 6.0, "mark": "placeholder"},  # and so is this one, but for its mark
        {"cluster": uid(98)},  # alone
        {},
        {"mark": "removed", "similarity": 0.1},
        {"mark": "in_eval_set", "similarity": None},
    ]
    expected = ["near_duplicate", None, "similarity", "placeholder", None, None, "removed", "missing_value"]
    facts = facts_of(rows)
    assert told([facts]) == dict(enumerate(expected))
    assert told([facts.slice(0, 1), facts.slice(1, 0), facts.slice(1)]) == dict(enumerate(expected))
    assert told([facts.slice(4), facts.slice(0, 4)]) == dict(enumerate(expected))


def test_settled_rules_are_known_to_pass():
    assert told([facts_of([{"similarity": 0.1}])], frozenset({"similarity"})) == {0: None}


def test_no_facts():
    rules = build_rules(parse_recipe(RECIPE))
    for facts in ([], [facts_of([{}]).slice(0, 0)]):
        numbers, result = verdicts(facts, rules)
        assert (len(numbers), len(result.code), len(result.tiers)) == (0, 0, 0)


def test_many_rows_in_any_batches_agree_with_verdicts_and_with_one_survivor_a_cluster():
    batch = batch_of(300, 3)
    batch = batch.append_column("row", pa.array(np.arange(300) * 7)).append_column("mark", pa.nulls(300, pa.string()))
    rules = build_rules(parse_recipe(RECIPE))
    whole, parts = (verdicts(facts, rules) for facts in ([batch], [batch.slice(n, 70) for n in range(0, 300, 70)]))
    assert whole[0].tolist() == parts[0].tolist() == list(range(0, 2100, 7))
    assert (whole[1].code == parts[1].code).all()
    alone = verdicts_of(rules, batch)
    assert (whole[1].tiers == alone.tiers).all()
    passing, kept = alone.code == PASSES, whole[1].code == PASSES
    clusters = np.array(batch["cluster"].to_pylist(), object)
    assert sorted(clusters[kept]) == sorted(set(clusters[passing]))  # each cluster with a row that passes has one


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


def test_a_batch_is_evaluated_by_itself_and_says_who_must_meet_whom():
    rules = build_rules(parse_recipe(RECIPE))
    rows = [{"cluster": uid(9)}, {"similarity": 0.1, "cluster": uid(9)}, {}, {"mark": "placeholder", "cluster": uid(9)}]
    evaluated = evaluate_rows(facts_of([*rows, {"cluster": uid(9), "aesthetic_v2": 5.0}]), rules)
    names = names_of(evaluated.verdicts.code, reasons_of(rules)).to_pylist()
    assert names == [None, "similarity", None, "placeholder", None]
    assert evaluated.rivals.tolist() == [0, 4]
    assert evaluated.candidates.losers().tolist() == [True, False]
