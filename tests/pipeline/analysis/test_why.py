"""why: by uid, prefix or URL; values with origins, verdicts, attempts, twins with who survived."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.aside import ASIDE, Group
from manifests.checksums import sha256_file
from manifests.files import write_table
from manifests.journal import FileRecord
from manifests.uid import uid_of
from pipeline.analysis import why
from pipeline.analysis.why import NotFound, caption_lines, find_rows, spellings, story
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from tests.support.filter_runs import run_filter
from tests.support.records import put_table
from tests.support.small_web import write_input, write_recipe

ROW = pa.schema([("uid", pa.binary(16)), ("url", pa.string())])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, web):
    folder = tmp_path_factory.mktemp("why")
    write_input(folder / "in")
    path = write_recipe(folder / "recipe.toml", web, folder / "in", folder / "run")
    run_filter(path, folder / "run")
    return load_recipe(path)


def told(recipe, asked):
    return "\n".join(line for row in find_rows(recipe.root, asked) for line in story(recipe, row))


def test_a_kept_row_and_its_twin(recipe):
    text = told(recipe, "http://pictures.test/3.jpg")
    assert "from      a.parquet row 3" in text
    assert "width           96  (decoded)" in text
    assert "fetch     attempt 1: a picture came (http_status 200" in text
    assert "filter: size min_side = 64: passes (width = 96, height = 96)" in text
    assert "finetune: size" in text
    twin = uid_of("http://pictures.test/twin.jpg", "picture number three again").hex()
    assert f"twin      {twin} http://pictures.test/twin.jpg: " in text
    assert "near_duplicate" in text


def test_uid_prefix_and_url_find_the_same_rows_and_copies_are_shown(recipe):
    uid = uid_of("http://pictures.test/0.jpg", "picture number 0").hex()
    rows = find_rows(recipe.root, uid)
    assert [row["reason"] for row in rows] == [None, "exact_duplicate"]
    assert find_rows(recipe.root, uid[:8].upper()) == rows == find_rows(recipe.root, uid[:20])
    assert find_rows(recipe.root, "http://pictures.test/0.jpg")[:2] == rows


def test_every_spelling_of_a_url_finds_its_rows_and_every_spelling_is_found(recipe, tmp_path):
    rows = find_rows(recipe.root, "http://pictures.test/3.jpg")
    assert [row["source_row"] for row in rows if row["source"] == "a.parquet"] == [3]
    for spelling in (
        "https://Pictures.TEST./x/../3.jpg?",
        "http:\\\\pictures.test\\%33.jpg",
        " ht\ttp:pictures.test/3.jpg#x",
    ):
        assert find_rows(recipe.root, spelling) == rows
    table = tmp_path / "final.parquet"
    urls = ["http://a.test/1.jpg", "https://a.test/x/..\\1.jpg", "http://a.test/1.jpg?", "http://xn--a.test/1.jpg"]
    urls += ["http://a.test/11.jpg", "http://a.test/1.JPG", None, "images/./1.jpg"]
    pq.write_table(pa.table({"url": urls}), table)
    assert spellings(tmp_path, [table], "HTTP://a.test:80/%31.jpg") == sorted(urls[:3])
    encoded = ["http://a.test/it's|(1).jpg", "http://a.test/x/.y/../../it%27s%7c%281%29.jpg", "http://a.test/it%27s"]
    pq.write_table(pa.table({"url": encoded}), tmp_path / "encoded.parquet")
    assert spellings(tmp_path, [tmp_path / "encoded.parquet"], "http://a.test/%69t%27s|%281).jpg") == encoded[:2]
    assert spellings(tmp_path, [table], urls[3]) == [urls[3]]
    assert spellings(tmp_path, [table], "images/1.jpg") == [urls[7]]
    assert spellings(tmp_path, [table], "http://b.test/1.jpg") == []


def test_every_attempt_of_a_captioner_is_told_and_what_became_of_it():
    tried = {"prompt": "describe_v1", "seed": 0, "text": "cat", "flags": ["too_short"], "reason": None}
    again = {**tried, "seed": 1, "text": "a cat", "flags": []}
    row = {"name": "llava-00000", "attempts": [tried, again], "reason": None, "model": "m", "caption": "a cat"}
    assert list(caption_lines({**row, "action": "keep", "origin": "attempt_2"})) == [
        "  caption   llava-00000: attempt 1 (prompt describe_v1): 'cat'  [too_short]",
        "  caption   llava-00000: attempt 2 (prompt describe_v1, seed 1): 'a cat'",
        "  caption   llava-00000: keep: attempt_2, by m: a cat",
    ]
    failed = {**tried, "text": None, "flags": [], "reason": "not_an_image"}
    assert list(caption_lines({**row, "attempts": [failed], "reason": "not_an_image"})) == [
        "  caption   llava-00000: attempt 1 (prompt describe_v1): not_an_image",
        "  caption   llava-00000: none: not_an_image",
    ]
    back = {**row, "attempts": [], "model": None, "caption": "top", "action": "fall_back", "origin": "top_caption"}
    assert list(caption_lines(back)) == ["  caption   llava-00000: fall_back: top_caption: top"]


def test_a_row_that_never_came(recipe):
    assert "attempt 1: http_404 (http_status 404" in told(recipe, "http://pictures.test/none.jpg")
    assert "dropped: size" in told(recipe, "http://pictures.test/30.jpg")


def test_a_row_that_select_dropped_is_read_again_from_the_input(recipe):
    text = told(recipe, "http://pictures.test/30.jpg")
    assert "dropped: size" in text
    assert "width           30  (input, read again)" in text
    assert "filter: size min_side = 64: fails (width = 30, height = 30)" in text
    assert "filter: text" in text
    assert "pretrain: aspect max = 2.0: passes" in text


def test_an_input_that_is_gone_is_said(recipe, tmp_path):
    (row,) = find_rows(recipe.root, "http://pictures.test/30.jpg")
    assert "input     cannot be read again: gone.parquet row" in "\n".join(
        story(recipe, {**row, "source": "gone.parquet"})
    )
    assert "read again" not in "\n".join(story(recipe, {**row, "reason": "removed"}))


def test_a_row_that_lies_aside_alone_is_said_to(tmp_path):
    uids = [b"u" * 16, b"v" * 16, b"w" * 16]
    urls = ["http://a.test/1.jpg", "https://A.test:443/x/../1.jpg", None]
    root, pairs = tmp_path, tmp_path / ASIDE / "fetch" / "0-pairs.parquet"
    put_table(root, "decide", "ledger/final/0.parquet", [{"uid": b"x" * 16, "url": "http://a.test/2.jpg"}], ROW)
    write_table(pairs, pa.table({"key": [uid.hex() for uid in uids], "url": pa.array(urls, pa.string())}))
    file = FileRecord(pairs.name, sha256_file(pairs), pairs.stat().st_size)
    Group(pairs.parent, "0", "fetch", "alike", 3, pairs.name, (file,)).write()
    with pytest.raises(NotFound, match=r"URL 'http://a.test/1.jpg' now, but what was fetched of 2 uids .* aside/fetch"):
        find_rows(root, "http://a.test/1.jpg")
    with pytest.raises(NotFound, match=f"uid '{'77' * 8}' now, but what was fetched of 1 uids"):
        find_rows(root, "77" * 8)
    for absent in ("http://a.test/3.jpg", "78" * 4 + "79"):
        with pytest.raises(NotFound, match=r"no row of (?!the plan)"):
            find_rows(root, absent)


def test_unknown_rows_and_folders(recipe, tmp_path):
    with pytest.raises(NotFound, match="no row of"):
        find_rows(recipe.root, "f" * 32)
    with pytest.raises(NotFound, match="URL 'http://else"):
        find_rows(recipe.root, "http://else.test/")
    with pytest.raises(RecipeError, match="filter has not run"):
        find_rows(tmp_path, "f" * 32)


@pytest.mark.parametrize("spelling", ["http://a.test/xx/longword.jpg", "http://A.test/y/../xx/long%77ord.jpg"])
def test_only_urls_with_the_longest_word_of_the_path_are_parsed(tmp_path, monkeypatch, spelling):
    """The word is `longword`: a URL has it as it stands, or a percent sign, or a tab or line break in it."""
    urls = ["http://a.test/xx/longword.jpg", "http:\\\\a.test\\xx\\longword.jpg", "http://a.test/xx/lo%6egword.jpg"]
    urls += ["http://a.test/xx/long\tword.jpg", "ht\ntp://a.test/xx/longword.jpg", "http://a.test/xx/long\rword.jpg"]
    others = ["http://a.test/xx/LONGWORD.jpg", "http:\\\\a.test/xx/longer.jpg", "http://b.test/xx/longword.jpg", None]
    parsed = []
    forms = why.place_forms
    monkeypatch.setattr(why, "place_forms", lambda urls: parsed.extend(urls.to_pylist()) or forms(urls))
    pq.write_table(pa.table({"url": [*urls, *others]}), tmp_path / "final.parquet")
    assert spellings(tmp_path, [tmp_path / "final.parquet"], spelling) == sorted(urls)
    assert not {*others} & {*parsed}


def test_tables_are_asked_some_at_a_time_and_rows_stay_in_order(recipe, monkeypatch):
    url, kept = "http://pictures.test/0.jpg", "http://pictures.test/3.jpg"
    before, story_before = find_rows(recipe.root, url), told(recipe, kept)
    monkeypatch.setattr(why, "FILES", 1)
    assert (find_rows(recipe.root, url), told(recipe, kept)) == (before, story_before)
    assert len(before) > 1
