"""Costs: what was measured at several sizes, worked out by hand, and files of costs that say too little."""

import json

import pytest

from manifests.files import FormatError
from pipeline.analysis.costs import Measured, find_costs, read_costs
from pipeline.recipes.schema import RecipeError

MILLION = 1_000_000


def entry(size, **other):
    counts = {"input": size, "planned": size // 2, "fetched": size // 4, "kept": size // 10, "packed": size // 8}
    figures = dict.fromkeys(("wall_s", "peak_mib", "read", "written", "files", "spilled"), 0)
    named = {"mode": "rows", "input": size, "kind": "work", "name": "decide", "workers": 1, "units": size // 100_000}
    return {**named, "rows": size, "counts": counts, "cpu_s": 2 + size / MILLION, **figures, **other}


def thing(*points, **other):
    return Measured("work", other.get("name", "decide"), points, tuple(other.get("twice", ())))


def written(path, entries, **other):
    path.write_text(json.dumps({"format": 1, "machine": {"cores": 2}, "measured": entries, **other}))
    return path


@pytest.mark.parametrize(("peaks", "then"), [((300, 340), 340), ((200, 400), 1300)])
def test_a_peak_that_hardly_grows_is_flat_and_another_goes_on(peaks, then):
    points = [entry(size, peak_mib=peak) for size, peak in zip((MILLION, 3 * MILLION), peaks, strict=True)]
    found = thing(*points)  # 100 + 100 a million, or what it was
    assert (found.laws["peak_mib"].at(12 * MILLION), found.of_one_size) == (pytest.approx(then), False)


def test_runs_that_work_by_parts_tell_what_larger_ones_take():
    at_once = entry(MILLION, name="dedup", peak_mib=900, written=50e6)
    by_parts = [
        entry(n * MILLION, name="dedup", spilled=n * 100e6, peak_mib=480 + n, cpu_s=7.0 * n, written=n * 40e6)
        for n in (3, 10)
    ]
    found = thing(at_once, *by_parts)
    assert [one["input"] for one in found.alike] == [3 * MILLION, 10 * MILLION]
    assert found.laws["peak_mib"].at(600 * MILLION) == 490
    assert found.laws["cpu_s"].at(30 * MILLION) == pytest.approx(210.0)
    assert (found.lone, thing(at_once, by_parts[0]).lone) == (False, True)
    lone = thing(at_once, by_parts[0]).laws  # known of one run alone
    assert (lone["peak_mib"].at(600 * MILLION), lone["spilled"].at(6 * MILLION)) == (483, pytest.approx(600e6))


def test_dedup_moves_its_hashes_once_a_table():
    found = thing(*(entry(n * MILLION, spilled=n * 28e6) for n in (1, 3)), name="dedup")
    assert found.laws["spilled"].at(100 * MILLION) == pytest.approx(8400e6)  # 84 tables at this size, 28 at those


def test_a_step_of_one_unit_has_one_at_any_size():
    points = [entry(size, units=1) for size in (MILLION, 3 * MILLION)]
    assert thing(*points).units(600 * MILLION) == pytest.approx(1.0)
    assert thing(*points[:1]).of_one_size


def test_what_two_workers_divide_all_divide():
    ones = [entry(n * MILLION, wall_s=2 + 10 * n) for n in (1, 3)]
    twos = [entry(n * MILLION, wall_s=2 + 6 * n, workers=2) for n in (1, 3)]
    found = thing(*ones, twice=twos)  # at 10 million: 102 and 62 seconds, so 22 alone and 80 divided
    assert found.seconds(10 * MILLION, 0, 1, False) == (pytest.approx(102.0), pytest.approx(80 / 102))
    assert found.seconds(10 * MILLION, 0, 2, False)[0] == pytest.approx(62.0)
    assert found.seconds(10 * MILLION, 0, 20, False)[0] == pytest.approx(26.0)


def test_two_workers_of_one_size_tell_a_share_and_of_none_what_is_fixed_stays():
    ones = [entry(n * MILLION, wall_s=2 + 10 * n) for n in (1, 3)]
    once = thing(*ones, twice=[entry(3 * MILLION, wall_s=20.0, workers=2)])  # 32 and 20 seconds: a quarter is alone
    assert once.seconds(10 * MILLION, 0, 20, False) == (pytest.approx(102 / 4 + 102 * 0.75 / 20), pytest.approx(0.75))
    assert thing(*ones).seconds(10 * MILLION, 0, 20, True)[0] == pytest.approx(2 + 100 / 20)
    assert thing(*ones).seconds(10 * MILLION, 0, 20, False) == (pytest.approx(102.0), 0)


def test_a_clock_that_other_jobs_bend_is_no_square():
    ones = [entry(n * MILLION, cpu_s=n * 1.0, wall_s=wall) for n, wall in ((1, 2.0), (3, 6.0), (10, 90.0))]
    laws = thing(*ones).laws
    assert (laws["cpu_s"].shape, laws["wall_s"].shape) == ("", "")
    bent = [{**one, "cpu_s": one["wall_s"]} for one in ones]
    assert thing(*bent).laws["wall_s"].shape == "square"


def test_a_gain_that_may_be_chance_is_none():
    ones = [entry(n * MILLION, wall_s=0.8 + 0.1 * n) for n in (1, 3)]
    found = thing(*ones, twice=[entry(3 * MILLION, wall_s=0.6, workers=2)])
    assert found.seconds(600 * MILLION, 0, 20, False) == (pytest.approx(60.8), 0)


def test_a_file_of_costs_is_read_and_its_steps_follow_places(tmp_path):
    entries = [entry(MILLION), entry(3 * MILLION), entry(MILLION, name="score", rows=MILLION // 4)]
    entries += [entry(3 * MILLION, name="score", rows=3 * MILLION // 4), entry(MILLION, name="lost", failed="killed")]
    costs = read_costs(written(tmp_path / "scale.json", entries))
    assert [(one.name, one.follows, one.ratio) for one in costs.measured] == [
        ("decide", "input", 1.0),
        ("score", "fetched", 1.0),
    ]
    assert costs.sizes == [MILLION, 3 * MILLION]
    assert costs.shares() == {"input": 1.0, "planned": 0.5, "fetched": 0.25, "kept": 0.1, "packed": 0.125}
    assert costs.measured[0].laws["cpu_s"].at(10 * MILLION) == pytest.approx(12.0)
    assert costs.measured[0].units(10 * MILLION) == pytest.approx(100)


def test_runs_of_small_shards_tell_what_a_shard_takes(tmp_path):
    plans = [entry(n * MILLION, kind="plan", name="fetch", units=50 * n) for n in (1, 3)]
    asked = [entry(n * MILLION, kind="question", name="rerun", cpu_s=3.0) for n in (1, 3)]
    small = [entry(MILLION, mode="shards", kind="plan", name="fetch", units=60_050)]
    small.append(entry(MILLION, mode="shards", kind="question", name="rerun", cpu_s=33.0))
    costs = read_costs(written(tmp_path / "scale.json", [*plans, *asked, *small]))
    rerun = next(one for one in costs.measured if one.name == "rerun")
    assert rerun.laws["cpu_s"].at(MILLION, 60_050) == pytest.approx(33.0, abs=0.1)  # 30 seconds for 60,000 shards more


def test_of_what_was_measured_again_the_last_counts(tmp_path):
    again = [entry(MILLION, cpu_s=50.0), entry(3 * MILLION), entry(MILLION, cpu_s=3.0, commit="another")]
    (found,) = read_costs(written(tmp_path / "scale.json", again)).measured
    assert [one["cpu_s"] for one in found.points] == [3.0, 5.0]


def test_a_file_says_rates_and_is_read_up_to_a_size(tmp_path):
    entries = [entry(n * MILLION, wall_s=10.0 * n) for n in (1, 3, 10)]
    entries.append(entry(3 * MILLION, wall_s=20.0, workers=2))
    path = written(tmp_path / "scale.json", entries, rates={"worker": {"fetch": 27.0}})
    costs = read_costs(path, most=3 * MILLION)
    assert (costs.sizes, costs.rates) == ([MILLION, 3 * MILLION], {"worker": {"fetch": 27.0}})
    assert costs.measured[0].faster == pytest.approx(1.5)
    with pytest.raises(FormatError, match="a rate is not above 0"):
        read_costs(written(tmp_path / "scale.json", entries, rates={"worker": {"fetch": 0}}))


def test_no_file_one_size_and_another_file_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"no file of costs here .*python benchmarks/bench_scale.py --rows 1e6 3e6"):
        find_costs(None)
    with pytest.raises(RecipeError, match=r"no file of costs 'mine\.json'"):
        find_costs("mine.json")
    path = written(tmp_path / "scale.json", [entry(MILLION)])
    assert find_costs(None).resolve() == path
    with pytest.raises(RecipeError, match="runs of one size only"):
        read_costs(path)
    for text in (
        "[]",
        "{}",
        '{"measured": [], "machine": 3}',
        '{"measured": [{"counts": 3}], "machine": {}}',
        '{"measured": [], "machine": {}, "rates": {"worker": 3}}',
        "nothing",
    ):
        path.write_text(text)
        with pytest.raises(FormatError, match="no file of costs"):
            read_costs(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu_s": float("nan")},
        {"cpu_s": 10**400},
        {"wall_s": float("inf")},
        {"peak_mib": -1},
        {"rows": -1},
        {"units": "x"},
        {"workers": 0},
        {"counts": {"input": -1, "planned": 1, "fetched": 1, "kept": 1, "packed": 1}},
    ],
)
def test_figures_that_no_run_has_are_refused(tmp_path, wrong):
    with pytest.raises(FormatError, match="no number from"):
        read_costs(written(tmp_path / "scale.json", [entry(MILLION), entry(3 * MILLION, **wrong)]))


@pytest.mark.parametrize("rate", ["30", float("inf"), -1])
def test_a_rate_that_is_none_is_refused(tmp_path, rate):
    entries = [entry(MILLION), entry(3 * MILLION)]
    with pytest.raises(FormatError):
        read_costs(written(tmp_path / "scale.json", entries, rates={"worker": {"fetch": rate}}))
