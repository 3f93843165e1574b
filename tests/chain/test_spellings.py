"""Whole runs over URLs in odd spellings: what browsers fetch is kept, and no spelling is a way round a list, a removal
or a site's rules."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.analysis.why import find_rows
from tests.support.filter_runs import final_rows, run_filter
from tests.support.removals import holding, remove, whole
from tests.support.small_web import SIDE, write_recipe

SPELLINGS = [
    "http://pictures.test/{}.jpg",
    " http://pictures.test/{}.jpg\t",
    "http:\\\\pictures.test\\{}.jpg",
    "http://pictures.test/pub/../{}.jpg",
    "http://pictures.test/./%2e/{}.jpg",
    "ht\ttp://pictures.test/\r\n{}.jpg",
    "http://Pictures.TEST./{}.jpg?#top",
    "http:pictures.test/{}.jpg",
    "http://me:word@picture%73.test:80/{}.%6apg",
]
"""Of one URL; the last one is written otherwise on the wire too: an encoded letter stays encoded there."""


@pytest.fixture
def made(tmp_path, web):
    """Return (recipe, root) of pictures 1 to 9, each in another spelling, under two captions."""
    urls = [spelling.format(number) for number, spelling in enumerate(SPELLINGS, 1) for _ in range(2)]
    size = [float(SIDE)] * len(urls)
    texts = [f"caption number {number}" for number in range(len(urls))]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"URL": urls, "TEXT": texts, "WIDTH": size, "HEIGHT": size}), tmp_path / "in" / "a.parquet")
    return write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run"), tmp_path / "run"


def reasons(root):
    """Return the reasons of the first caption of each picture; the second is its near duplicate, where it is kept."""
    return [row["reason"] for row in final_rows(root)[::2]]


def test_what_browsers_fetch_is_asked_for_once_and_kept(made, web):
    recipe, root = made
    before = len(web.hits)
    run_filter(recipe, root)
    asked = [hit for hit in web.hits[before:] if "robots" not in hit and "well-known" not in hit]
    assert sorted(asked) == sorted([*(f"/{n}.jpg" for n in range(1, 9)), "/9.%6apg"])
    assert [row["reason"] for row in final_rows(root) if row["reason"] not in (None, "near_duplicate")] == [
        "http_404"
    ] * 2
    assert [row["url"] for row in final_rows(root)[::2]] == [text.format(n) for n, text in enumerate(SPELLINGS, 1)]


@pytest.mark.parametrize("listed", ["url", "host", "none"])
def test_no_spelling_is_a_way_round_a_list_or_robots_txt(made, web, tmp_path, listed):
    recipe, root = made
    lines = {"url": [f"https://pictures.test/x/..\\{n}.jpg" for n in range(1, 10)], "host": ["host", "pictures.test"]}
    (tmp_path / "list.txt").write_text("\n".join(lines.get(listed, ["host", "elsewhere.test"])))
    web.pages["/robots.txt"] = b"User-agent: *\nDisallow: /*.jpg$"
    try:
        before = len(web.hits)
        run_filter(recipe, root, f'filter.exclude="{tmp_path}/list.txt"')
        assert [hit for hit in web.hits[before:] if "pg" in hit] == []
    finally:
        del web.pages["/robots.txt"]
    assert reasons(root) == ["robots" if listed == "none" else "removed"] * len(SPELLINGS)


@pytest.mark.parametrize("number", range(1, 10))
def test_a_removal_means_every_spelling_and_why_finds_it(made, number):
    recipe, root = made
    run_filter(recipe, root)
    written, url = SPELLINGS[number - 1].format(number), f"https://pictures.test/{number}.jpg"
    assert [row["url"] for row in find_rows(root, url)] == [written] * 2
    remove(root, url=url)
    assert [row["reason"] for row in final_rows(root)].count("removed") == 2
    assert holding(root, [], [written]) == set()
    assert whole(root) == []
    run_filter(recipe, root)
    assert [row["reason"] for row in final_rows(root)].count("removed") == 2
