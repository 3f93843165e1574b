"""One reading of a captioner's tables: pictures that share a pHash count once, and languages need a detector."""

import random

import pyarrow as pa
import pytest

from captioning.prompts import PROMPTS
from manifests.query import connect
from manifests.weights import WeightsError
from pipeline.analysis.caption_audit import prompts_of
from pipeline.analysis.caption_reader import CaptionReader, flags
from pipeline.analysis.caption_rows import caption_tables
from tests.support.caption_runs import Row, filler, write_captions

ENGLISH = "a woman walks along the river with her dog in the morning"
GERMAN = "eine Frau geht am Morgen mit ihrem Hund am Fluss entlang"


def read(root, top=5):
    with connect(root) as connection:
        return CaptionReader(root, "a", caption_tables(root)["a"], prompts_of(root), connection).facts(top)


def test_a_run_of_words_counts_once_for_pictures_of_one_phash(tmp_path):
    draw = random.Random(2)
    fixed = "and so the old mill stands beside a very quiet lake"
    rows = [Row(n, captions={"a": f"{filler(draw, 5)} {fixed}"}, phash=n // 4) for n in range(100)]
    one = read(write_captions(tmp_path, rows, 30))
    assert {run.pictures for run in one.skeletons} == {25}
    assert one.skeletons[0].share.of == 100


def test_openings_closings_and_prompts(tmp_path):
    prompt = next(iter(PROMPTS.values())).text
    rows = [Row(n, captions={"a": f"{prompt}, number {n} it is"}) for n in range(8)]
    rows += [Row(n, captions={"a": "Two words"}) for n in range(8, 11)]
    one = read(write_captions(tmp_path, rows))
    words = prompt.lower().split()[:4]
    assert [(end.text, end.captions.hits) for end in one.openings] == [(" ".join(words), 8), ("two words", 3)]
    assert (one.closings[0].text, one.closings[0].captions.hits) == ("two words", 3)
    assert (one.leaked.hits, one.leaks[0].captions) == (8, 8)
    assert len(one.leaks[0].examples) == 3


def test_a_caption_in_another_language_than_its_alt_text(tmp_path):
    rows = [Row(n, text=GERMAN, captions={"a": f"{ENGLISH} {n}"}) for n in range(30)]
    rows += [Row(n, text=ENGLISH, captions={"a": ENGLISH}) for n in range(30, 40)]
    root = write_captions(tmp_path, rows)
    one = read(root)
    told = one.languages
    assert (told.pictures, told.changed.hits, told.shifts) == (40, 30, (("de", "en", 30),))
    assert (told.alt, told.caption) == ({"de": 30, "en": 10}, {"en": 40})


def test_without_the_detector_languages_are_left_out(tmp_path, monkeypatch):
    def missing(texts):
        raise WeightsError("not installed")

    monkeypatch.setattr("filters.language.detect", missing)
    root = write_captions(tmp_path, [Row(1, text="a man", captions={"a": "a man"})])
    assert read(root).languages is None


def test_flags_are_numpys():
    assert flags(pa.array([True, False])).tolist() == [True, False]
    with pytest.raises(pa.ArrowInvalid):
        flags(pa.array(["x"]).cast(pa.bool_()))
