"""A URL that was answered for one caption is not asked for again under another, of its shard or another one, or
when rules are loosened. The bytes are those of a fresh run."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.aside import ASIDE, groups
from pipeline.steps.fetch.known_urls import answered, note_urls, serves_others
from pipeline.steps.fetch.limits import SAME
from pipeline.steps.fetch.pairs import Attempt
from tests.support.filter_runs import run_filter
from tests.support.keep_runs import differing
from tests.support.small_web import FETCHED, write_recipe

RULES = '[filter]\nrules = [{ use = "text", min_words = 2 }]\n[tier.pretrain]\nsize = 64\nrules = []\n'
LOOSE = 'filter.rules=[{ use = "text", min_words = 1, min_chars = 1 }]'
ONLY_SHORT = 'filter.rules=[{ use = "text", min_words = 1, min_chars = 1, max_chars = 5 }]'
URL = "http://pictures.test/{}.jpg"
ROWS = [
    (URL.format(1), "two words"),
    (URL.format(2), "two words"),
    (URL.format(1), "one"),
    ("HTTP://Pictures.test:80/x/../1.jpg", "uno"),
    (URL.format("none"), "is gone"),
    (URL.format("none"), "gone"),
    (URL.format(3), "drei"),
]
"""Three rows of two words; the others come with the looser rule."""


@pytest.fixture
def place(tmp_path, web):
    """Return (recipe, the run of the strict rule, what was asked of the web for pictures since)."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.parquet", ROWS)
    text = FETCHED + RULES.replace("{", "{{").replace("}", "}}")
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run", text)
    run_filter(recipe, tmp_path / "run")
    before = len(web.hits)
    return recipe, tmp_path / "run", lambda: sorted(hit for hit in web.hits[before:] if hit.endswith(".jpg"))


def write(path, rows):
    urls, texts = zip(*rows, strict=True)
    pq.write_table(pa.table({"URL": urls, "TEXT": texts}), path)


def same_as_fresh(root, recipe, fresh, manifest, *sets):
    """Tell whether a run has the digest, pairs and last attempts of a fresh one."""
    digest = run_filter(recipe, fresh, *sets).digest
    others = [name for name in differing(root, fresh) if name.startswith(("pairs/", "scores/"))]
    assert others == []
    return manifest.digest == digest


def test_a_looser_rule_asks_for_no_url_that_was_answered_under_another_caption(place, tmp_path):
    recipe, root, asked = place
    manifest = run_filter(recipe, root, LOOSE)
    assert asked() == ["/3.jpg"]
    assert manifest.dropped["http_404"] == 2
    assert same_as_fresh(root, recipe, tmp_path / "fresh", manifest, LOOSE)


def test_a_url_whose_other_caption_lies_aside_is_taken_from_there(place, tmp_path):
    """No caption of before is in the plan any more."""
    recipe, root, asked = place
    manifest = run_filter(recipe, root, ONLY_SHORT)
    assert asked() == ["/3.jpg"]
    assert [group.rows for group in groups(root, ASIDE, "fetch")] == [3]
    assert same_as_fresh(root, recipe, tmp_path / "fresh", manifest, ONLY_SHORT)


@pytest.mark.parametrize("rows", [1, 2])
def test_one_url_under_captions_in_several_shards_is_asked_for_once(place, tmp_path, web, rows):
    recipe, _, asked = place
    small = (LOOSE, f"fetch.shard_rows={rows}")
    manifest = run_filter(recipe, tmp_path / "small", *small)
    spelled_apart = 1  # as the plan has it, the URL in capitals is another one: it is found in its own shard alone
    assert asked().count("/1.jpg") <= 1 + spelled_apart
    assert (asked().count("/none.jpg"), asked().count("/2.jpg"), asked().count("/3.jpg")) == (1, 1, 1)
    assert manifest.dropped["http_404"] == 2
    assert same_as_fresh(tmp_path / "small", recipe, tmp_path / "fresh", manifest, *small)


def test_captions_that_come_with_a_later_file_are_not_asked_for(place, tmp_path):
    recipe, root, asked = place
    write(tmp_path / "in" / "b.parquet", [(URL.format(2), "a later caption"), (URL.format(4), "new picture")])
    run_filter(recipe, root)
    assert asked() == ["/4.jpg"]
    first, later = (pq.read_table(root / "pairs" / f"{name}.parquet").to_pylist() for name in ("00000", "00001"))
    assert [row["caption"] for row in later] == ["a later caption", "new picture"]
    assert (later[0]["sha256"], later[0]["md5"]) == (first[1]["sha256"], first[1]["md5"])


def test_a_picture_that_is_damaged_where_it_lies_is_asked_for_again(place, tmp_path):
    recipe, root, asked = place
    tar = root / "pairs" / "00000.tar"
    data = bytearray(tar.read_bytes())
    data[1000] ^= 1  # in the first picture
    tar.write_bytes(bytes(data))
    write(tmp_path / "in" / "b.parquet", [(URL.format(1), "a later caption")])
    run_filter(recipe, root)
    assert asked() == ["/1.jpg"]


def test_what_serves_no_other_row():
    assert serves_others(Attempt(404, "http_404"))
    assert not serves_others(Attempt(200, "removed", "list", "md5"))
    assert not serves_others(Attempt(200))  # of before: its digests are not known


def test_without_an_index_nothing_is_known(tmp_path):
    note_urls(tmp_path, {"x"}, ["00000"])
    assert not (tmp_path / ".earlier").exists()
    assert answered(tmp_path, {"x": SAME}, {URL.format(1)}, (), None, "00000") == {}
