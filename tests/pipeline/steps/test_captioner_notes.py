"""How many pictures fit at a time is found once, noted, and told."""

import json
from types import SimpleNamespace

from pipeline.steps.captioner_notes import note, note_path, take_noted, told


def captioner(slots=8, device="cpu", found=True, notes=()):
    return SimpleNamespace(name="llava", slots=slots, device=device, found=found, notes=list(notes))


def test_what_was_found_is_taken_the_next_time_on_the_same_device(tmp_path):
    note(tmp_path, captioner(4))
    for one, slots in (
        (captioner(64), 4),
        (captioner(64, device="other"), 64),
        (captioner(64, found=False), 64),
    ):
        take_noted(tmp_path, one)
        assert one.slots == slots


def test_it_is_told_with_what_the_captioner_fell_back_on(tmp_path):
    note(tmp_path, captioner(4, notes=["llava: one picture at a time"]))
    assert told(tmp_path, "llava") == [
        "caption: llava: 4 pictures at a time on cpu",
        "caption: llava: one picture at a time",
    ]
    assert told(tmp_path, "other") == []


def test_captioners_without_slots_and_broken_notes_are_passed_over(tmp_path):
    endpoint = SimpleNamespace(name="llava", notes=[])
    note(tmp_path, endpoint)
    take_noted(tmp_path, endpoint)
    assert not note_path(tmp_path, "llava").exists()
    note(tmp_path, captioner())
    for broken in ("{", "[]", json.dumps({"slots": 0, "device": "cpu", "notes": []}), json.dumps({"slots": "x"})):
        note_path(tmp_path, "llava").write_text(broken)
        one = captioner(64)
        take_noted(tmp_path, one)
        assert one.slots == 64
        assert told(tmp_path, "llava") == []
