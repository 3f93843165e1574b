"""The rehearsal of a run: its figures by hand from laws that are lines, and what it takes for granted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.analysis.costs import Costs, Measured
from pipeline.analysis.rehearsal import lines, plain, rehearse
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import RecipeError

MILLION = 1_000_000


def measured(kind, name, of=1.0, faster=0.0, **per_million):
    """Return a thing whose figures are so much for each million rows of its own, measured at two sizes; two workers are
    so many times faster."""
    points = []
    for size in (MILLION, 3 * MILLION):
        counts = {"input": size, "planned": size // 2, "fetched": size // 4, "kept": size // 10, "packed": size // 8}
        rows = int(size * of)
        figures = {name: per_million.get(name, 0) * rows / MILLION for name in FIGURES}
        told = {"mode": "rows", "input": size, "rows": rows, "units": rows // 100_000, "counts": counts}
        points.append({**told, **figures})
    twice = [{**one, "workers": 2, "wall_s": one["wall_s"] / faster} for one in points] if faster else []
    return Measured(kind, name, tuple(points), tuple(twice))


FIGURES = ("cpu_s", "wall_s", "peak_mib", "read", "written", "files", "spilled")


@pytest.fixture
def costs():
    things = (
        measured("work", "select", faster=1.6, cpu_s=36.0, wall_s=36.0, written=50e6, files=10),
        measured("plan", "fetch", of=0.5, cpu_s=8.0, wall_s=7.2, peak_mib=300, spilled=1e6),
        measured("plan", "score", of=0.25, faster=1.6, cpu_s=8.0, wall_s=24.0),
        measured("question", "whatif", cpu_s=1.8, wall_s=1.8, peak_mib=70),
    )
    return Costs(Path("scale.json"), {"cores": 2}, things)


@pytest.fixture
def recipe(tmp_path):
    return parse_recipe(
        {
            "input": {"files": str(tmp_path / "none" / "*.parquet")},
            "output": {"root": str(tmp_path / "run")},
            "tier": {"all": {"size": 256, "caption": "llava"}},
            "caption": {"llava": {"model": "stand-in"}},
        }
    )


def parts(made):
    return {(part.kind, part.name): part for part in [*made.steps, *made.questions]}


def test_a_run_of_600_million_rows_by_hand(costs, recipe):
    made = rehearse(recipe, 600 * MILLION, 20, 4, costs)
    assert made.expected == {
        "input": 600 * MILLION,
        "planned": 300 * MILLION,
        "fetched": 150 * MILLION,
        "kept": 60 * MILLION,
        "packed": 75 * MILLION,
    }
    found = parts(made)
    select = found["work", "select"]  # 600 x 36 s, of which 20 workers do 2 (1 - 1 / 1.6) = 0.75: 6 h x 0.2875
    assert (select.cpu_s, select.hours, select.units, select.where) == (21_600.0, 1.725, 6000, "workers")
    assert (select.written, select.files) == (30_000_000_000, 6000)
    plan = found["plan", "fetch"]  # 300 x 7.2 s in the driver
    assert (plan.rows, plan.hours, plan.units, plan.where) == (300 * MILLION, 0.6, 30_000, "driver")
    assert (plan.peak_mib, plan.memory_mib, plan.spilled) == (90_000.0, 90_000.0, 300_000_000)
    plan = found["plan", "score"]  # 150 x 24 s, shared in the same way: an hour x 0.2875
    assert (plan.hours, plan.where) == (0.2875, "driver and workers")
    fetch = found["work", "fetch"]  # 300 million at 20 x 25 rows/s, 1.1 requests a row, four files a shard of 10,000
    assert (fetch.hours, fetch.requests, fetch.files) == (166.6667, 330 * MILLION, 120_000)
    score = found["work", "score"]  # 4 x 50 TFLOP/s of 160 GFLOP a row: 1250 rows/s; cores decode 2600
    assert (score.hours, score.where) == (33.3333, "gpus")
    assert found["question", "whatif"].hours == 0.3
    assert made.total["requests"] == 330 * MILLION
    assert made.total["peak_mib"] == 90_000.0
    assert made.beyond == 200.0


def test_it_says_what_it_takes_for_granted_and_what_it_leaves_out(costs, recipe):
    made = rehearse(recipe, 600 * MILLION, 16, 0, costs)
    text = "\n".join(lines(made))
    assert "rehearsal: 600,000,000 rows, 16 workers, 0 GPUs" in text
    assert "assumed: rows at each place: in the shares of the measured runs, since the input says nothing" in text
    assert "assumed: caption: 0.25 rows/s a worker, not measured (--rate caption=ROWS)" in text
    assert "assumed: plan fetch: its memory grew from run to run and is let go on, 300.0 MiB a million rows" in text
    assert "assumed: decide: left out, no cost of it was measured" in text
    assert "costs: scale.json, runs of 1,000,000, 3,000,000 rows; this run is 200 x the largest" in text
    assert "t5" not in {part.name for part in made.steps}  # features are made online
    assert parts(made)["work", "score"].where == "cores"
    assert json.loads(json.dumps(plain(made)))["assumed"] == made.assumed


def test_rates_are_given_or_of_the_file(costs, recipe):
    known = replace(costs, rates={"gpu": {"score": 500.0}})
    made = rehearse(recipe, 600 * MILLION, 20, 4, known, {"fetch": 50.0})
    found = parts(made)
    assert found["work", "fetch"].hours == 83.3333  # 300 million at 20 x 50 rows/s
    assert found["work", "score"].hours == 20.8333  # 150 million at 4 x 500
    assert "fetch: 50 rows/s a worker, given by --rate" in made.assumed
    assert "score: 500 rows/s a GPU, of the file of costs" in made.assumed


def test_all_processes_of_a_step_hold_what_its_workers_hold(costs, recipe):
    things = (*costs.measured, measured("work", "decide", faster=1.9, peak_mib=100, wall_s=10.0))
    decide = parts(rehearse(recipe, 600 * MILLION, 16, 0, replace(costs, measured=things)))["work", "decide"]
    assert (decide.peak_mib, decide.memory_mib, decide.where) == (60_000.0, 60_000.0 * 17, "driver and workers")


def test_without_rows_and_without_an_input_there_is_nothing_to_rehearse(costs, recipe):
    with pytest.raises(RecipeError):
        rehearse(recipe, None, 16, 0, costs)
