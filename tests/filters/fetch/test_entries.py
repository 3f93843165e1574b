"""Entries of a training and data mining assertion."""

from filters.fetch.entries import refused_entries


def test_refused_entries_of_an_assertion() -> None:
    entries = {
        "cawg.data_mining": {"use": "allowed"},
        "cawg.ai_training": {"use": "notAllowed"},
        "c2pa.ai_inference": {"use": "constrained", "constraint_info": "ask"},
        "other.ai_training": {"use": "maybe"},
        "cawg.future": {"use": "notAllowed"},
    }
    refused = [("c2pa.ai_inference", "constrained"), ("cawg.ai_training", "notAllowed")]
    assert refused_entries({"entries": entries}) == refused_entries(entries) == refused
    assert [refused_entries(odd) for odd in (None, [], {"entries": 3}, {"a": 1}, "x")] == [[]] * 5
