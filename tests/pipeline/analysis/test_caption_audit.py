"""What is planted in ten thousand captions is found, what is not is not, and strangers' words break nothing."""

import json
import random
from dataclasses import asdict, replace

import pytest

from manifests.files import write_json
from manifests.journal import FileRecord, Journal, ShardRecord
from pipeline.analysis.caption_audit import audit, audit_filter, prompts_of
from pipeline.recipes.schema import RecipeError
from tests.support.caption_runs import Row, filler, write_captions

TEMPLATE = "The image features a beautiful view of the famous town called"
PEOPLE = ("woman", "man", "doctor", "teacher", "child", "french", "asian")
NAMES = ("Anna", "Berlin", "Carl", "Dakar", "Emil")
NAUGHTY = (
    *("", " ", "\x00", "\ufffd\u202e", "<script>alert(1)</script>", "'; DROP TABLE said; --", "{alt} %s {0} \\"),
    *("日本語の説明。" * 5, "एक सुंदर चित्र", "🐈" * 300, "a" * 200_000, "la " * 30_000, "\n\n\t\r"),
)


def planted(rows=12_000):
    """Return rows of which 4,000 have one caption, 1,000 share a template around names, 30 % of the captions have lost
    `doctor`, and the filter keeps pictures with `woman` more often."""
    draw = random.Random(9)
    made = []
    for n in range(rows):
        who = draw.choice(PEOPLE)
        text = f"{filler(draw, 4)} {who} {filler(draw, 3)}"
        kept = draw.random() < (0.9 if who == "woman" else 0.8)
        said = "person" if who == "doctor" and draw.random() < 0.3 else who
        caption = f"{filler(draw, 12)} A {said} {filler(draw, 12)}"
        if n < 4000:
            caption = draw.choice(("There is no image.", "there is NO image", "There is no  image!"))
        elif n < 5000:
            caption = f"{TEMPLATE} {draw.choice(NAMES)} in {draw.randrange(1900, 2000)}. {filler(draw, 30)}"
        made.append(
            Row(
                n,
                text=text,
                top_caption=filler(draw, 8),
                captions={"llava": caption} if kept else {},
                reason=None if kept else "aesthetic",
                aesthetic=draw.gauss(5.2 if who == "woman" else 5, 1),
            )
        )
    return made


@pytest.fixture(scope="module")
def rows():
    return planted()


@pytest.fixture(scope="module")
def found(rows, tmp_path_factory):
    return audit(write_captions(tmp_path_factory.mktemp("run"), rows))


def test_one_caption_over_thousands_of_pictures_is_found(found, rows):
    (llava,) = found.captioners
    first = llava.repeats.top[0]
    count = sum(row.number < 4000 and not row.reason for row in rows)
    assert first.text.lower().startswith("there is no")
    assert (first.captions, first.pictures, llava.repeats.texts) == (count, count, 1)
    assert llava.repeats.captions.hits == count
    assert first.example in {row.uid.hex() for row in rows[:4000]}
    assert llava.openings[0].text == llava.closings[0].text == "there is no image"
    assert llava.openings[0].captions.hits == count


def test_a_template_around_names_and_numbers_is_found(found, rows):
    (llava,) = found.captioners
    count = sum(4000 <= row.number < 5000 and not row.reason for row in rows)
    top = llava.skeletons[0]
    assert count - top.missed <= top.pictures <= count
    assert top.text == "the image features a beautiful view of the"
    assert sum("famous town" in one.text for one in llava.skeletons) == 0  # not each of its parts


def test_a_caption_on_twins_of_one_picture_is_no_repeat(tmp_path):
    draw = random.Random(3)
    said = filler(draw, 20)
    rows = [Row(n, captions={"a": said}, phash=7) for n in range(30)]
    rows += [Row(n, captions={"a": filler(draw, 20)}) for n in range(30, 40)]
    (one,) = audit(write_captions(tmp_path, rows)).captioners
    assert (one.repeats.texts, one.repeats.top, one.own) == (0, (), 40)
    assert one.skeletons == ()
    rows[0] = replace(rows[0], phash=8)
    (one,) = audit(write_captions(tmp_path, rows)).captioners
    assert [(row.captions, row.pictures) for row in one.repeats.top] == [(30, 2)]


def test_a_term_that_30_percent_of_captions_lost_lies_in_its_interval(found):
    (llava,) = found.captioners
    groups = {one.group: one for one in llava.mentions}
    # the first 5,000 captions name nobody: what is planted is told by the rest
    assert groups["doctor"].apart
    rest = {name: _rest(groups[name]) for name in ("doctor", "teacher", "women")}
    assert rest["doctor"] == pytest.approx(0.3, abs=0.06)
    assert abs(rest["teacher"]) < 0.06
    assert abs(rest["women"]) < 0.06


def _rest(group):
    """Return the removed share among the 7 of 12 rows whose captions are about their picture."""
    return 1 - group.kept.rate / (7 / 12)


def test_who_is_kept_more_often_is_seen(found):
    groups = {one.group: one for one in found.filter.groups}
    women = groups["women"]
    assert women.apart
    assert women.difference.low <= 0.1 <= women.difference.high
    assert women.aesthetic_difference.low <= 0.2 <= women.aesthetic_difference.high
    assert found.filter.judged.of == 12_000
    assert women.kept.of == women.rows
    assert len(women.examples["dropped"]) == 3


@pytest.mark.parametrize("removed", [0.3, 0.0])
def test_a_planted_loss_is_within_its_interval_and_a_placebo_shows_none(tmp_path, removed):
    draw = random.Random(21)
    rows = []
    for n in range(6000):
        who = draw.choice(PEOPLE)
        said = "person" if who == "doctor" and draw.random() < removed else who
        fate = None if draw.random() < 0.8 else "aesthetic"
        texts = f"{filler(draw, 4)} {who}.", f"{filler(draw, 9)} a {said} {filler(draw, 5)}"
        rows.append(
            Row(n, text=texts[0], captions={} if fate else {"a": texts[1]}, reason=fate, aesthetic=draw.gauss(5, 1))
        )
    found = audit(write_captions(tmp_path, rows))
    groups = {one.group: one for one in found.captioners[0].mentions}
    doctor = groups["doctor"]
    assert doctor.removed.low <= removed <= doctor.removed.high
    assert {name for name, one in groups.items() if one.apart} == ({"doctor", "neutral"} if removed else set())
    assert found.filter.apart <= 2  # of eight groups and two differences each, by chance
    assert found.captioners[0].repeats.texts == 0
    assert found.captioners[0].leaks == ()


def test_hostile_texts_break_nothing(tmp_path):
    draw = random.Random(5)
    texts = [*NAUGHTY, *(filler(draw, 3) for _ in range(20))]
    rows = [
        Row(
            n,
            text=draw.choice([*texts, None]),
            top_caption=draw.choice([*texts, None]),
            captions={"a": draw.choice(texts)},
        )
        for n in range(300)
    ]
    found = audit(write_captions(tmp_path, rows))
    assert found.captioners[0].own == 300
    assert json.loads(json.dumps(asdict(found)))["captioners"][0]["captioner"] == "a"


def test_runs_without_alt_text_and_without_rows(tmp_path):
    draw = random.Random(6)
    bare = [Row(n, captions={"a": f"A woman {filler(draw)}"}) for n in range(50)]
    (one,) = audit(write_captions(tmp_path / "bare", bare)).captioners
    assert (one.compared, one.mentions, set(one.lengths), set(one.vocabulary)) == (0, (), {"caption"}, {"caption"})
    assert one.languages is None or one.languages.pictures == 0
    none = [Row(n, captions={"a": None}, more={"reason": "caption_empty"}) for n in range(5)]
    found = audit(write_captions(tmp_path / "none", none))
    (one,) = found.captioners
    assert (one.rows, one.own, one.dropped, one.openings, one.leaked.rate) == (5, 0, {"caption_empty": 5}, (), None)
    assert found.filter.groups == ()


def test_the_order_of_shards_and_another_reading_change_nothing(tmp_path):
    rows = planted(1500)
    first = write_captions(tmp_path / "first", rows, 400)
    found = asdict(audit(first))
    assert json.dumps(found) == json.dumps(asdict(audit(first)))
    other = asdict(audit(write_captions(tmp_path / "other", rows, 1500)))
    for part in ("lengths", "vocabulary", "languages", "openings", "leaked", "rows", "own"):
        assert _without_examples(found["captioners"][0][part]) == _without_examples(other["captioners"][0][part])


def _without_examples(value):
    if isinstance(value, tuple | list):
        return [_without_examples(one) for one in value]
    return {key: one for key, one in value.items() if key != "example"} if isinstance(value, dict) else value


def test_captioners_are_told_apart_and_named(tmp_path):
    draw = random.Random(7)
    rows = [Row(n, text="a man", captions={"qwen": filler(draw), "llava": "USER: what"}) for n in range(30)]
    root = write_captions(tmp_path, rows)
    assert [one.captioner for one in audit(root).captioners] == ["llava", "qwen"]
    (llava,) = audit(root, "llava").captioners
    assert [(leak.what, leak.captions) for leak in llava.leaks] == [("USER:", 30)]
    with pytest.raises(RecipeError, match="captioners: llava, qwen"):
        audit(root, "lava")


def test_without_captions_it_says_what_comes_first(tmp_path):
    with pytest.raises(RecipeError, match="first: pipeline run --stage caption"):
        audit(tmp_path)


def test_only_the_first_tables_where_it_is_asked(tmp_path):
    draw = random.Random(8)
    rows = [Row(n, text="a man", captions={"a": filler(draw)}) for n in range(40)]
    found = audit(write_captions(tmp_path, rows, 10), most_rows=15)
    assert (found.captioners[0].rows, found.filter.rows) == (20, 20)
    assert found.notes[0] == "a: the first 2 of 4 tables are looked at"


def test_the_prompts_of_the_recipe_are_looked_for_too(tmp_path):
    assert "describe_v1" in prompts_of(tmp_path)
    own = {"caption": {"prompts": {"mine": {"text": "Say what stands in here"}}}}
    write_json(tmp_path / "manifests" / "recipe.json", {"recipe": own})
    assert prompts_of(tmp_path)["mine"] == "Say what stands in here"
    write_json(tmp_path / "manifests" / "recipe.json", {"recipe": {"caption": {"prompts": {"mine": 3}}}})
    assert "mine" not in prompts_of(tmp_path)


def test_a_run_without_a_ledger_has_no_filter_to_look_at(tmp_path):
    found = audit_filter(tmp_path)
    assert (found.rows, found.groups, found.judged.rate) == (0, (), None)


def test_a_whole_run_says_the_same_from_a_store(made, stored):
    found, again = asdict(audit(made)), asdict(audit(stored))
    assert found["captioners"][0]["own"] == found["captioners"][0]["compared"] > 0
    assert found["filter"]["rows"] > found["captioners"][0]["rows"]
    assert {**found, "run": ""} == {**again, "run": ""}


def test_a_table_that_is_missing_is_said(tmp_path):
    draw = random.Random(8)
    root = write_captions(tmp_path, [Row(n, text="a man", captions={"llava": filler(draw)}) for n in range(5)])
    for name, rows in (("llava-00000", 5), ("llava-00009", 7)):
        file = FileRecord(f"captions/{name}.parquet", "0" * 64, 1)
        Journal(root, "judge").record(ShardRecord(name, "key", (file,), rows, rows))
    (note,) = [note for note in audit(root).notes if "missing" in note]
    assert note.startswith("captions/llava-00009.parquet is missing: its 7 pictures are not looked at")
