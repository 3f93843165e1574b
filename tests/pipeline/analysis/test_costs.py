"""Costs: laws fitted to points worked out by hand, and files of costs that say too little."""

import json

import pytest

from manifests.files import FormatError
from pipeline.analysis.costs import Measured, find_costs, fit, near_work, read_costs
from pipeline.recipes.schema import RecipeError

MILLION = 1_000_000


def entry(size, **other):
    counts = {"input": size, "planned": size // 2, "fetched": size // 4, "kept": size // 10, "packed": size // 8}
    figures = dict.fromkeys(("wall_s", "peak_mib", "read", "written", "files", "spilled"), 0)
    named = {"mode": "rows", "input": size, "kind": "work", "name": "decide", "workers": 1, "units": size // 100_000}
    return {**named, "rows": size, "counts": counts, "cpu_s": 2 + size / MILLION, **figures, **other}


def written(path, entries):
    path.write_text(json.dumps({"format": 1, "machine": {"cores": 2}, "measured": entries}))
    return path


def test_a_line_is_found_again_and_goes_on():
    law = fit([(MILLION, 1, 3.0), (3 * MILLION, 3, 5.0), (10 * MILLION, 10, 12.0)])
    assert (law.fixed, law.per_row) == (pytest.approx(2.0), pytest.approx(1e-6))
    assert (law.at(30 * MILLION, 30), law.shape, law.error) == (pytest.approx(32.0), "", pytest.approx(0, abs=1e-6))


def test_what_grows_with_the_square_is_no_line():
    law = fit([(MILLION, 1, 15.0), (2 * MILLION, 2, 30.0), (4 * MILLION, 4, 90.0)])  # 10 + 5 n n
    assert (law.shape, law.at(8 * MILLION)) == ("square", pytest.approx(330.0))


def test_a_shard_costs_beside_its_rows_where_shards_of_two_sizes_were_measured():
    points = [(MILLION, 100, 3.0), (3 * MILLION, 300, 7.0), (100_000, 10_000, 101.1)]  # 1 + n / million + units / 100
    law = fit(points)
    assert (law.per_unit, law.at(MILLION, 60_000)) == (pytest.approx(0.01), pytest.approx(602.0))
    assert fit(points[:2]).per_unit == 0  # with one size, units are told from rows by nothing


def test_one_point_is_so_much_a_row():
    assert fit([(MILLION, 1, 3.0)]).at(10 * MILLION) == pytest.approx(30.0)


@pytest.mark.parametrize(("peaks", "then"), [((300, 340), 340), ((200, 400), 1300)])
def test_a_peak_that_hardly_grows_is_flat_and_another_goes_on(peaks, then):
    points = [entry(size, peak_mib=peak) for size, peak in zip((MILLION, 3 * MILLION), peaks, strict=True)]
    thing = Measured("work", "decide", tuple(points))  # 100 + 100 a million, or what it was
    assert (thing.laws["peak_mib"].at(12 * MILLION), thing.of_one_size) == (pytest.approx(then), False)


def test_a_step_of_one_unit_has_one_at_any_size():
    points = [entry(size, units=1) for size in (MILLION, 3 * MILLION)]
    assert Measured("work", "decide", tuple(points)).units(600 * MILLION) == pytest.approx(1.0)
    assert Measured("work", "decide", tuple(points[:1])).of_one_size


def test_nothing_costs_nothing_and_noise_goes_down_no_further_than_to_nothing():
    assert fit([(MILLION, 1, 0.0), (3 * MILLION, 3, 0.0)]).at(1e9) == 0
    assert fit([(MILLION, 1, 300.0), (3 * MILLION, 3, 290.0)]).at(1e9) == pytest.approx(295, rel=0.02)


def test_comparing_hashes_is_sorting_and_pairs():
    assert near_work(2) == 8.0  # one pair of 4 ns; sorting 7 tables of two would take 84
    # 28 tables of 16 bits: 28 x (n x 20 bits of log2 x 6 ns + n n / 2 / 65536 x 4 ns), n = 2**20
    assert near_work(2**20) == pytest.approx(28 * (2**20 * 20 * 6 + 2**40 / 2 / 2**16 * 4), rel=1e-9)
    near = [(n * MILLION, 1, 1 + 2e-9 * near_work(n * MILLION)) for n in (1, 3, 10)]
    law = fit(near, near=True)
    assert law.at(30 * MILLION) == pytest.approx(1 + 2e-9 * near_work(30 * MILLION), rel=0.1)


def test_a_file_of_costs_is_read_and_its_steps_follow_places(tmp_path):
    entries = [entry(MILLION), entry(3 * MILLION), entry(MILLION, name="score", rows=MILLION // 4)]
    entries += [entry(3 * MILLION, name="score", rows=3 * MILLION // 4), entry(MILLION, name="lost", failed="killed")]
    costs = read_costs(written(tmp_path / "scale.json", entries))
    assert [(one.name, one.follows, one.largest) for one in costs.measured] == [
        ("decide", "input", 3 * MILLION),
        ("score", "fetched", 3 * MILLION / 4),
    ]
    assert costs.sizes == [MILLION, 3 * MILLION]
    assert costs.shares() == {"input": 1.0, "planned": 0.5, "fetched": 0.25, "kept": 0.1, "packed": 0.125}
    assert costs.measured[0].laws["cpu_s"].at(10 * MILLION) == pytest.approx(12.0)
    assert costs.measured[0].units(10 * MILLION) == pytest.approx(100)


def test_of_what_was_measured_again_the_last_counts(tmp_path):
    again = [entry(MILLION, cpu_s=50.0), entry(3 * MILLION), entry(MILLION, cpu_s=3.0, commit="another")]
    (thing,) = read_costs(written(tmp_path / "scale.json", again)).measured
    assert [one["cpu_s"] for one in thing.points] == [3.0, 5.0]


def test_how_much_faster_two_workers_are(tmp_path):
    one, two = entry(3 * MILLION, wall_s=16.0), entry(3 * MILLION, wall_s=10.0, workers=2)
    costs = read_costs(written(tmp_path / "scale.json", [entry(MILLION), one, two]))
    assert costs.speedups == {("work", "decide"): pytest.approx(1.6)}


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
        "nothing",
    ):
        path.write_text(text)
        with pytest.raises(FormatError, match="no file of costs"):
            read_costs(path)
