"""What smaller runs foretell of a larger one, on files made up by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.analysis.foretold import hold, lines
from pipeline.recipes.schema import RecipeError

MILLION = 1_000_000
BENCH = Path(__file__).parents[3] / "benchmarks" / "bench_scale.py"


def made(path, **at_thirty):
    """Write a file of runs of 1, 3, 10 and 30 million rows that cost ten seconds and 100 MB a million, but for the
    largest."""
    entries = []
    for n in (1, 3, 10, 30):
        counts = dict.fromkeys(("input", "planned", "fetched", "kept", "packed"), n * MILLION)
        one = {"mode": "rows", "input": n * MILLION, "kind": "work", "name": "decide", "counts": counts}
        one |= {"cpu_s": 2 + 10 * n, "wall_s": 2 + 10 * n, "peak_mib": 300, "read": 0, "files": 1, "spilled": 0}
        one |= {"written": 100e6 * n, "rows": n * MILLION, "workers": 1, **(at_thirty if n == 30 else {})}
        entries += [one, {**one, "workers": 2, "wall_s": 2 + 6 * n}]
    path.write_text(json.dumps({"machine": {"cores": 2}, "measured": entries}))
    return path


def test_what_smaller_runs_foretell_is_held_against_the_larger_one(tmp_path):
    found = hold(made(tmp_path / "scale.json", cpu_s=500.0, peak_mib=345.0), 30 * MILLION)
    told = {(one.thing, one.figure): (round(one.foretold, 3), one.measured, one.close) for one in found}
    assert told["work decide", "cpu_s"] == (302.0, 500.0, False)  # 40 % less
    assert told["work decide", "wall_s"] == (302.0, 302, True)
    assert told["work decide", "peak_mib"] == (300.0, 345.0, True)
    assert told["work decide", "written"] == (3000e6, 3000e6, True)
    assert told["work decide, 2 workers", "wall_s"] == (182.0, 182, True)
    text = "\n".join(lines(found))
    assert "302.0 / 500.0 CPU s BEYOND (-40%)" in text
    assert "1 of 7 figures are off by more than 25%; what is off by less than 2 CPU s, 2 s, 50 MiB," in text


def test_trifles_are_passed_over(tmp_path):
    found = hold(made(tmp_path / "scale.json", peak_mib=251.0, spilled=40e6), 30 * MILLION)
    assert all(one.close for one in found)


def test_a_run_that_was_not_measured_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"no run of 20,000,000 rows; measured: 1,000,000, 3,000,000, 10,000,000"):
        hold(made(tmp_path / "scale.json"), 20 * MILLION)


@pytest.mark.parametrize(("figure", "code"), [(302.0, 0), (900.0, 1)])
def test_the_benchmark_prints_it_and_says_so_by_its_exit_code(tmp_path, figure, code):
    path = made(tmp_path / "scale.json", wall_s=figure)
    ran = subprocess.run(
        [sys.executable, BENCH, "--out", path, "--predict", "30e6"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, "foretold / measured at 30,000,000 rows" in ran.stdout) == (code, True), ran.stderr
