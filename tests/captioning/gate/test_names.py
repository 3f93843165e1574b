"""Names and numbers that a caption loses or makes up."""

import pytest

from captioning.gate.names import compared, names_of, numbers_of


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a man in Berlin", ["berlin"]),
        ("Barack Obama speaks in Berlin", ["barack", "obama", "berlin"]),
        ("The cat of Mary's aunt", ["mary"]),
        ("A cat. Dogs bark. He meets Ann.", ["ann"]),
        ("In Paris a dog waits on Monday", ["paris"]),
        ("A NASA rocket stands near the USA flag today", ["nasa", "usa"]),
        ("A Very Long Title Of Some Shop", None),
        ("ALL CAPITALS HERE", None),
        ("a cat", []),
        ("", []),
        ("猫が寝る", None),
        ("I think I'm in love", []),
    ],
)
def test_names_are_told_by_capitals_where_these_tell(text, names):
    assert names_of(text) == names


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,000 dogs and 1000 cats", ["1000"]),
        ("two dogs, 2 cats", ["2"]),
        ("a 3.5 km road, 3.50 and 3,5", ["3.5"]),
        ("the 2nd floor, second door", ["2"]),
        ("5km and 70mph", ["5", "70"]),
        ("jc6640 and 4x4", []),
        ("1 234 567 people", ["1234567"]),
        ("version 1.2.3", []),
        ("no. 007 of twenty", ["7", "20"]),
        ("one dog", []),
        ("1. A cat 2. A dog", []),
        ("1. A cat", ["1"]),
        ("twenty-one cats", ["21"]),
        ("500ml and 500 ml", ["500"]),
        ("No.5", ["5"]),
        ("the 1st, the first", ["1"]),
    ],
)
def test_numbers_are_one_however_they_are_written(text, numbers):
    assert numbers_of(text) == numbers


def test_a_caption_is_held_beside_the_webs_text():
    alt = "Barack Obama in Berlin with 2 dogs, 2013"
    assert compared(alt, "Barack Obama stands with two dogs in Berlin in 2013.") == dict.fromkeys(
        ("lost_names", "invented_names", "lost_numbers", "invented_numbers"), 0
    )
    assert compared(alt, "A man named Joe Biden with 3 dogs in Berlin.", "joe") == {
        "lost_names": 2,
        "invented_names": 1,
        "lost_numbers": 2,
        "invented_numbers": 1,
    }
    assert set(compared(" ", "A man in Rome").values()) == {None}
    assert compared("Big Red Shoes For Sale", "Shoes in Rome")["lost_names"] is None
