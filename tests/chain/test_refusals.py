"""A whole filter stage over a web that refuses in many ways: each row has its receipt, each signal its count."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import read_json
from manifests.verify import verify_run
from pipeline.recipes.load import load_recipe
from pipeline.report.render import write_report
from pipeline.stages.registry import STAGES
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import without_beam
from tests.support.refusing_files import files_with, packet, refusing
from tests.support.signed_files import cbor, manifest, png_with_boxes
from tests.support.small_web import RECIPE, SIDE, write_recipe

ROBOTS = b"""User-agent: *
Disallow: /forbidden/
Content-Signal: /signal/ search=yes, ai-train=no
Content-Usage: /usage/ train-ai=n
"""
TDM = b'[{"location": "/reserved/", "tdm-reservation": 1}]'
RECEIPTS = {
    "/forbidden/1.jpg": ("robots", "robots.txt", "Disallow: /forbidden/"),
    "/pub/../forbidden/1.jpg": ("robots", "robots.txt", "Disallow: /forbidden/"),
    "/signal/1.jpg": ("opted_out", "robots.txt Content-Signal", "Content-Signal: /signal/ search=yes, ai-train=no"),
    "/a/../signal/1.jpg": (
        "opted_out",
        "robots.txt Content-Signal",
        "Content-Signal: /signal/ search=yes, ai-train=no",
    ),
    "/usage/1.jpg": ("opted_out", "robots.txt Content-Usage", "Content-Usage: /usage/ train-ai=n"),
    "/reserved/1.jpg": ("opted_out", "tdmrep.json", "location: /reserved/, tdm-reservation: 1"),
    "/plus.webp": ("opted_out", "XMP plus:DataMining", "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"),
    "/tdm.png": ("opted_out", "XMP tdm:reservation", "1"),
    "/c2pa.png": ("opted_out", "C2PA cawg.training-mining", "cawg.ai_training: notAllowed"),
    "/1.jpg": (None, None, None),
    "/allowed.jpg": (None, None, None),
}
PAGES = {
    "/robots.txt": ROBOTS,
    "/.well-known/tdmrep.json": TDM,
    "/plus.webp": files_with(refusing("DMI-PROHIBITED"))["webp"],
    "/tdm.png": files_with(packet("<tdm:reservation>1</tdm:reservation>"))["png compressed"],
    "/c2pa.png": png_with_boxes(manifest(cbor(ai_training="notAllowed"))),
    "/allowed.jpg": files_with(refusing("DMI-ALLOWED"))["jpeg"],
}


@pytest.fixture
def run(web, tmp_path):
    """Return the run folder of a filter stage over these URLs."""
    before = {path: web.pages[path] for path in PAGES if path in web.pages}
    web.pages.update(PAGES)
    web.hits.clear()
    (tmp_path / "in").mkdir()
    urls = [f"http://pictures.test{path}" for path in RECEIPTS]
    sides = pa.array([float(SIDE)] * len(urls))
    texts = [f"picture of number {n}" for n in range(len(urls))]
    pq.write_table(
        pa.table({"URL": urls, "TEXT": texts, "WIDTH": sides, "HEIGHT": sides}), tmp_path / "in" / "a.parquet"
    )
    recipe = write_recipe(tmp_path / "recipe.toml", web, tmp_path / "in", tmp_path / "run", RECIPE)
    with without_beam():
        run_stage(load_recipe(recipe), "filter", StageOptions())
    yield tmp_path / "run"
    for path in PAGES:
        del web.pages[path]
    web.pages.update(before)


def test_every_refusal_is_obeyed_with_its_receipt_counted_and_reported(run, web):
    urls = {}
    for path in sorted((run / "ledger" / "select").glob("*.parquet")):
        urls.update({row["uid"]: row["url"] for row in pq.read_table(path, columns=["uid", "url"]).to_pylist()})
    ledger = [row for path in (run / "ledger" / "fetch").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    found = {urls[row["uid"]].removeprefix("http://pictures.test"): row for row in ledger if row["last"]}
    assert {path: (row["reason"], row["rule"], row["value"]) for path, row in found.items()} == RECEIPTS
    assert not [path for path in web.hits if path.startswith(("/forbidden", "/signal", "/usage", "/reserved"))]
    written = read_json(run / "manifests" / "filter.json")
    assert written["facts"]["refusals"] == {
        "C2PA cawg.training-mining": 1,
        "XMP plus:DataMining": 1,
        "XMP tdm:reservation": 1,
        "robots.txt": 2,
        "robots.txt Content-Signal": 2,
        "robots.txt Content-Usage": 1,
        "tdmrep.json": 1,
    }
    assert {name: written["dropped"][name] for name in ("robots", "opted_out")} == {"robots": 2, "opted_out": 7}
    page = write_report(run).read_text()
    assert all(signal in page for signal in written["facts"]["refusals"])
    assert not verify_run(run, {stage: tuple(step.name for step in steps) for stage, steps in STAGES.items()}).wrong
    for tar in (run / "pairs").glob("*.tar"):
        assert b"DMI-PROHIBITED" not in tar.read_bytes()
