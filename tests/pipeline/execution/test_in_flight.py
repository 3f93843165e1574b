"""pipeline/execution/in_flight.py: which rows a worker had in hand when it died, and who is worked on alone."""

import os

import pytest

from pipeline.execution.in_flight import InFlight, Part, batches, last_sign, part_path, read_in_flight, read_part
from tests.support.records import uid

ROWS = [(bytes([number]) * 16, number) for number in range(6)]


def test_rows_are_in_hand_while_the_block_runs(tmp_path):
    path = tmp_path / "in_flight"
    in_flight = InFlight(path)
    with in_flight.working_on("00007", [b"\x01" * 16, b"\xff" * 16]):
        assert read_in_flight(path) == ("00007", ["01" * 16, "ff" * 16])
    assert read_in_flight(path) == ("", [])
    with in_flight.working_on("00008", []):
        assert read_in_flight(path) == ("00008", [])  # the unit as a whole


def test_rows_stay_in_hand_where_the_block_raised(tmp_path):
    """An exception is charged like a death: to what was in hand."""
    with pytest.raises(ValueError, match="broken"), InFlight(tmp_path / "x").working_on("00001", [b"\x02" * 16]):
        raise ValueError("broken")
    assert read_in_flight(tmp_path / "x") == ("00001", ["02" * 16])


@pytest.mark.parametrize("text", ["", "{}", '{"unit": "0000', "\udcff"])
def test_a_file_cut_short_by_the_death_blames_nobody(tmp_path, text):
    (tmp_path / "x").write_text(text, errors="surrogateescape")
    assert read_in_flight(tmp_path / "x") == ("", [])
    assert read_in_flight(tmp_path / "none") == ("", [])


def test_a_driver_without_a_file_holds_rows_all_the_same():
    with InFlight().working_on("00001", [b"\0" * 16]):
        pass
    assert not InFlight().alone(b"\0" * 16)


def test_a_row_is_suspected_after_one_death_and_poisoned_after_three():
    in_flight = InFlight(None, {"01" * 16: 1, "02" * 16: 2, "03" * 16: 3})
    uids = [bytes([number]) * 16 for number in range(4)]
    assert [in_flight.alone(uid) for uid in uids] == [False, True, True, True]
    assert [in_flight.is_poisoned(uid) for uid in uids] == [False, False, False, True]


def test_suspects_come_alone_and_after_the_others():
    in_flight = InFlight(None, {(bytes([number]) * 16).hex(): 1 for number in (1, 4)})
    assert [[item for _, item in batch] for batch in batches(ROWS, 2, in_flight)] == [[0, 2], [3, 5], [1], [4]]
    assert [[item for _, item in batch] for batch in batches(ROWS, 4, InFlight())] == [[0, 1, 2, 3], [4, 5]]
    assert list(batches([], 4, InFlight())) == []


def test_a_batch_is_given_out_before_the_next_row_is_read():
    read = []
    stream = batches((read.append(item) or (uid, item) for uid, item in ROWS), 2, InFlight())
    assert [item for _, item in next(stream)] == [0, 1]
    assert read == [0, 1]


def test_the_last_sign_of_life_is_when_the_file_was_written(tmp_path):
    path = tmp_path / "x"
    assert last_sign(path) == 0.0
    path.touch()
    os.utime(path, (5.0, 1234.5))
    assert last_sign(path) == 1234.5
    InFlight(path)._write({})
    assert last_sign(path) > 1234.5


def test_a_fetch_that_waits_for_its_turn_lives_by_its_word_and_one_that_hangs_over_a_picture_does_not(tmp_path):
    path = tmp_path / "fetch-0.in_flight"
    in_flight = InFlight(path)
    in_flight._write({})
    in_flight.tell(Part("00000", 0, 9))
    os.utime(path, (5.0, 100.0))
    os.utime(part_path(path), (5.0, 900.0))
    assert last_sign(path) == 900.0  # nothing in hand: it waits for its share of a site's budget
    with in_flight.working_on("00000", [b"\x01" * 16]):
        os.utime(path, (5.0, 100.0))
        assert last_sign(path) == 100.0  # the thread that fetches tells on, the one that decodes does not
    os.utime(path, (5.0, 950.0))
    assert last_sign(path) == 950.0


def test_a_worker_says_how_far_it_is_and_counts_the_units_before(tmp_path):
    path = tmp_path / "fetch-0.in_flight"
    assert read_part(path) is None
    InFlight(path).tell(Part("00000", 3, 10, (("a.example", 7, 1.5),)))
    assert read_part(path) == Part("00000", 3, 10, (("a.example", 7, 1.5),), 0)
    InFlight(path).tell(Part("00000", 10, 10))
    InFlight(path).tell(Part("00001", 1, 5))  # a unit has an InFlight of its own
    assert read_part(path) == Part("00001", 1, 5, (), 10)
    InFlight(path).tell(Part("00001", 4, 5))
    InFlight(path).tell(Part("00002", 0, 5))
    assert read_part(path) == Part("00002", 0, 5, (), 14)
    assert [file.name for file in tmp_path.iterdir()] == ["fetch-0.part"]
    InFlight().tell(Part("00000", 3, 10))  # a driver without a file says nothing


def test_names_of_strangers_are_shown_as_a_terminal_may_show_them(tmp_path):
    path = tmp_path / "x.in_flight"
    InFlight(path).tell(Part("0", 0, 1, (("\x1b[2Jé" + "a" * 100, 1, 1.0),)))
    (host,) = read_part(path).slowest
    assert host == ("?[2J?" + "a" * 55, 1, 1.0)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"unit": "0', "[]", '{"unit": "0", "done": "x", "total": 1, "slowest": [], "before": 0}', "a" * 9999],
)
def test_what_is_no_word_of_a_worker_is_passed_over(tmp_path, text):
    part_path(tmp_path / "x.in_flight").write_text(text)
    assert read_part(tmp_path / "x.in_flight") is None


def test_rows_stay_in_hand_until_others_are(tmp_path):
    in_flight = InFlight(tmp_path / "a.in_flight")
    in_flight.hold("00000", [uid(1), uid(2)])
    in_flight.hold("00000", [uid(2)])
    assert read_in_flight(in_flight.path) == ("00000", [uid(2).hex()])
    in_flight.hold("", ())
    assert read_in_flight(in_flight.path) == ("", [])


def test_a_worker_in_several_units_at_once_counts_the_others_itself(tmp_path):
    in_flight = InFlight(tmp_path / "a.in_flight")
    in_flight.tell(Part("00000", 5, 9), before=2)
    in_flight.tell(Part("00001", 1, 9), before=7)
    assert read_part(in_flight.path) == Part("00001", 1, 9, before=7)
