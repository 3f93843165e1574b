"""Limits of [fetch] that change: what was paid for is judged by what is known of it; the digest is a fresh run's."""

import hashlib
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.fetch.digests import Digests
from filters.images.decode import Stored
from manifests.aside import ASIDE, groups
from manifests.reasons import IMAGE
from manifests.shards import read_shard
from pipeline.execution.stand_ins import StandIn
from pipeline.steps.fetch.limits import (
    IN_BODY,
    LIMITS,
    SAME,
    Terms,
    known_settings,
    made_alike,
    note_settings,
    standing_for,
    terms,
)
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


def test_settings_stand_for_others_as_far_as_their_answers_would_be_taken_over(tmp_path):
    note_settings(tmp_path, "now", NOW)
    for key, value in (("shard_rows", 9), ("deadline_s", 9), ("max_redirects", 11), ("max_bytes", 11), ("robots", 0)):
        note_settings(tmp_path, key, {**NOW, key: value})
    assert standing_for(tmp_path, "now", {"max_pixels": {**NOW, "max_pixels": 11}}) == {
        "shard_rows": StandIn(),
        "deadline_s": StandIn(frozenset({"timeout", "host_down"})),
        "max_bytes": StandIn(frozenset({*IMAGE, *IN_BODY}), as_received=True),
        "max_pixels": StandIn(frozenset({*IMAGE} - {"too_many_pixels"})),
    }
    assert standing_for(tmp_path, "unknown", {}) == {}


def _tars(folder):
    return sorted(folder.glob("*.tar"))


def _samples(tar):
    return sum(1 for _ in read_shard(tar))


def _stored(tmp_path):
    return sum(_samples(tar) for tar in _tars(tmp_path / "run" / "pairs"))


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


def test_a_limit_that_is_put_back_among_changes_of_others_asks_nobody(place):
    asked, _ = place
    asked("fetch.max_bytes=50000000", "fetch.shard_rows=2")
    for rows in (2, 3, 4, 8):
        assert asked("fetch.max_bytes=60000000", f"fetch.shard_rows={rows}")[1] == []
        assert asked("fetch.max_bytes=50000000", f"fetch.shard_rows={rows + 10}")[1] == []


@pytest.mark.parametrize(
    "sets",
    [
        ["shard_rows=2", "shard_rows=3", "shard_rows=4"],
        ["deadline_s=20", "deadline_s=31", "deadline_s=19"],
        ["max_bytes=40000000", "max_bytes=30000000", "max_bytes=20000000"],
        ["max_pixels=90000000", "max_pixels=110000000", "max_pixels=80000000"],
        ["shard_rows=2", "max_pixels=110000000", "deadline_s=20"],
    ],
    ids="-".join,
)
def test_a_changed_limit_keeps_no_second_copy_of_what_the_shards_hold(place, tmp_path, sets):
    asked, _ = place
    pictures = _stored(asked("fetch.shard_rows=8") and tmp_path)
    for one in sets:
        asked(f"fetch.{one}")
        kept = [path for group in groups(tmp_path / "run", ASIDE, "fetch") for path in _tars(group.folder)]
        assert sum(_samples(path) for path in kept) == 0
        assert _stored(tmp_path) == pictures
    assert asked("fetch.shard_rows=8")[1] == []


def test_wider_limits_of_bytes_keep_one_copy_beside_that_of_the_shards_however_often_they_change(place, tmp_path):
    asked, _ = place
    counts = []
    for most in (50, 60, 70, 80):
        assert asked(f"fetch.max_bytes={most}000000")[1] == [] or most == 50
        counts.append(sum(_samples(path) for path in _tars(tmp_path / "run" / ASIDE / "fetch")))
    assert counts == [0, 2, 2, 2]
    for most in (70, 60, 50):
        assert asked(f"fetch.max_bytes={most}000000")[1] == []
