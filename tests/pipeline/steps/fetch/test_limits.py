"""Limits of [fetch] that change: what was paid for is judged by what is known of it; the digest is a fresh run's."""

import hashlib
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.fetch.digests import Digests
from filters.images.decode import Stored
from manifests.reasons import IMAGE
from pipeline.steps.fetch.limits import IN_BODY, LIMITS, SAME, Terms, known_settings, made_alike, note_settings, terms
from pipeline.steps.fetch.pairs import Attempt
from tests.support.filter_runs import run_filter
from tests.support.small_web import FETCHED, jpeg, picture, write_recipe

NOW = {"engine": "tessera", "robots": True, **dict.fromkeys(LIMITS, 10)}


@pytest.mark.parametrize(
    ("key", "wider", "narrower"),
    [
        ("shard_rows", set(), set()),
        ("deadline_s", {"timeout", "host_down"}, set()),
        ("max_redirects", {"too_many_redirects"}, None),  # how many were followed is not noted
        ("max_bytes", {"too_large"}, {*IMAGE, *IN_BODY}),
        ("max_pixels", {"too_many_pixels"}, {*IMAGE} - {"too_many_pixels"}),
    ],
)
def test_which_reasons_are_asked_again_under_a_limit_that_changed(key, wider, narrower):
    assert terms({**NOW, key: 9}, NOW).again == wider
    found = terms({**NOW, key: 11}, NOW)
    assert (found and found.again) == narrower
    most = (found.max_bytes, found.max_pixels) if found else None
    assert most == {"max_bytes": (10, None), "max_pixels": (None, 10), "max_redirects": None}.get(key, (None, None))


def test_other_settings_and_another_engines_limits_ask_again():
    assert terms({**NOW, "robots": False}, NOW) is None
    assert terms({**NOW, "keep_metadata": True}, NOW) is None
    theirs = {**NOW, "engine": "img2dataset"}
    assert terms({**theirs, "max_bytes": 9}, theirs) is None
    assert terms({**theirs, "shard_rows": 9}, theirs) == SAME
    both = terms({**NOW, "max_bytes": 9, "max_pixels": 11}, NOW)
    assert both == Terms(frozenset({"too_large", *IMAGE} - {"too_many_pixels"}), max_pixels=10)


def test_a_picture_is_held_against_narrower_limits():
    sha256 = hashlib.sha256(b"12345").hexdigest()
    known = Attempt(200, digests=Digests("m", "s", sha256, "p"))
    size = Stored(b"", 2, 2, 4, 5)
    assert Terms(max_bytes=5, max_pixels=20).holds(known, size, b"12345", sha256) == known
    assert Terms(max_bytes=4).holds(known, size, b"12345", sha256) is None
    other = replace(known, digests=replace(known.digests, source_sha256="of what came"))
    assert Terms(max_bytes=50).holds(other, size, b"12345", sha256) is None  # how much came is not known
    dropped = Attempt(200, "too_many_pixels", digests=Digests("m", "s", sha256, None))
    assert Terms(max_pixels=19).holds(known, size, b"12345", sha256) == dropped


def test_what_stands_behind_a_digest_is_noted(tmp_path):
    assert known_settings(tmp_path) == {}
    note_settings(tmp_path, "a", {**NOW, "max_bytes": 9})
    note_settings(tmp_path, "b", {**NOW, "robots": False})
    assert sorted(known_settings(tmp_path)) == ["a", "b"]
    assert made_alike(tmp_path, "c", NOW) == {"c": SAME, "a": Terms(frozenset({"too_large"}))}
    path = tmp_path / "manifests" / "plan" / "fetch-settings.json"
    path.write_text(json.dumps({"settings": 1}))
    assert made_alike(tmp_path, "c", NOW) == {"c": SAME}


@pytest.fixture
def place(tmp_path, web):
    """Return (recipe, run, what was asked for since): a small picture, a large one, a page, one that is not there."""
    web.pages["/large.jpg"] = jpeg(picture(7, 200, 200))
    urls = [f"http://pictures.test/{name}.jpg" for name in ("1", "large", "page", "none")]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"URL": urls, "TEXT": [f"number {n}" for n in range(4)]}), tmp_path / "in" / "a.parquet")
    text = FETCHED + "[filter]\nrules = []\n[tier.pretrain]\nsize = 64\nrules = []\n"
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run", text)

    def asked(*sets):
        before = len(web.hits)
        manifest = run_filter(recipe, tmp_path / "run", *sets)
        return manifest, sorted(hit for hit in web.hits[before:] if hit.endswith(".jpg"))

    yield asked, lambda *sets: run_filter(recipe, tmp_path / "fresh", *sets).digest
    del web.pages["/large.jpg"]


@pytest.mark.parametrize(
    ("before", "now", "wanted"),
    [
        ("shard_rows=8", "shard_rows=2", []),
        ("deadline_s=30", "deadline_s=20", []),
        ("max_bytes=5000", "max_bytes=60000000", ["/large.jpg"]),
        ("max_pixels=10000", "max_pixels=100000000", ["/large.jpg"]),
        ("max_pixels=100000000", "max_pixels=10000", ["/page.jpg"]),
    ],
)
def test_a_changed_limit_asks_for_nothing_that_it_leaves_as_it_is(place, before, now, wanted):
    asked, fresh = place
    asked(f"fetch.{before}")
    manifest, again = asked(f"fetch.{now}")
    assert again == wanted
    assert manifest.digest == fresh(f"fetch.{now}")
