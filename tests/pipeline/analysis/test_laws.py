"""Laws fitted to points worked out by hand."""

import pytest

from pipeline.analysis.laws import Law, Point, fit, flat, near_work

MILLION = 1_000_000


def points(*values, shards=100, sizes=(1, 3, 10)):
    return [Point(n * MILLION, n * shards, value) for n, value in zip(sizes, values, strict=False)]


def test_a_line_is_found_again_and_goes_on():
    law = fit(points(3.0, 5.0, 12.0))
    assert (law.fixed, law.per_row) == (pytest.approx(2.0), pytest.approx(1e-6))
    assert (law.at(30 * MILLION), law.shape, law.error) == (pytest.approx(32.0), "", pytest.approx(0, abs=1e-6))


def test_what_grows_with_the_square_is_no_line_unless_it_is_off_by_chance_alone():
    bent = points(15.0, 30.0, 90.0, sizes=(1, 2, 4))  # 10 + 5 n n
    assert (fit(bent).shape, fit(bent).at(8 * MILLION)) == ("square", pytest.approx(330.0))
    assert fit(points(0.6, 0.6, 1.5), slack=1.0).shape == ""  # half a second tells nothing of 600 million rows
    assert fit(bent[1:]).shape == ""  # two points tell a line


def test_where_growth_slows_down_the_two_largest_tell():
    law = fit(points(30.0, 40.0, 54.0))  # 5 a million, then 2
    assert (law.shape, law.at(30 * MILLION)) == ("", pytest.approx(94.0))


def test_a_shard_costs_beside_its_rows_where_runs_of_small_ones_were_measured():
    crowded = [Point(100_000, 10_000, 101.1)]  # 1 + n / million + shards / 100
    law = fit(points(3.0, 7.0), crowded=crowded)
    assert (law.per_shard, law.per_row) == (pytest.approx(0.01), pytest.approx(1e-6))
    assert (law.at(MILLION, 100), law.at(MILLION, 60_000)) == (pytest.approx(3.0), pytest.approx(602.0))
    assert fit(points(3.0, 7.0)).per_shard == 0
    assert fit(points(3.0, 7.0), crowded=[Point(MILLION, 100, 9.0)]).per_shard == 0  # shards as large as the others'


def test_one_size_is_so_much_a_row_and_nothing_costs_nothing():
    assert fit(points(3.0)).at(10 * MILLION) == pytest.approx(30.0)
    assert fit(points(0.0, 0.0)).at(1e9) == 0
    assert fit([Point(0.0, 0.0, 4.0)]).at(MILLION) == 4.0


def test_noise_goes_down_no_further_than_to_nothing():
    assert fit(points(300.0, 290.0)).at(1e9) == pytest.approx(295, rel=0.02)


def test_a_peak_that_is_the_same_in_the_two_largest_runs_stays():
    assert flat(points(200.0, 300.0, 340.0), lone=False) == Law(340.0, 0.0)
    assert flat(points(200.0, 300.0, 400.0), lone=False) is None
    assert flat(points(200.0, 300.0, 400.0), lone=True) == Law(400.0, 0.0)
    assert flat(points(120.0, 120.0, 144.0), lone=False) == Law(144.0, 0.0)  # 20 % more, but 24 MiB


def test_a_flat_peak_grows_with_shards_where_runs_of_small_ones_say_so():
    law = flat(points(200.0, 300.0, 300.0), False, [Point(MILLION, 60_100, 900.0)])  # 600 MiB for 60,000 shards more
    assert law is not None
    assert (law.at(10 * MILLION, 1000), law.at(600 * MILLION, 61_000)) == (pytest.approx(300.0), pytest.approx(900.0))


def test_comparing_hashes_is_moving_sorting_and_pairs():
    assert near_work(2) == (8.0, 0)  # one pair of 4 ns
    # 28 tables of 16 bits: 28 x (n x (20 bits of log2 x 6 ns + 30) + n n / 2 / 65536 x 4 ns), n = 2**20
    work = 28 * (2**20 * (20 * 6 + 30) + 2**40 / 2 / 2**16 * 4)
    assert near_work(2**20) == (pytest.approx(work, rel=1e-9), 28)
    assert near_work(100 * MILLION)[1] == 84


def test_the_work_of_hashes_is_taken_where_it_is_asked_for():
    near = [Point(n * MILLION, 0, 1 + 2e-9 * near_work(n * MILLION)[0]) for n in (1, 3, 10)]
    assert fit(near, ("near", "", "square")).at(30 * MILLION) == pytest.approx(
        1 + 2e-9 * near_work(30 * MILLION)[0], rel=1e-6
    )
    moved = [Point(n * MILLION, 0, 28.0 * n) for n in (1, 3)]
    for some in (moved, moved[:1]):
        assert fit(some, ("tables", "")).at(100 * MILLION) == pytest.approx(8400.0)  # 84 tables
