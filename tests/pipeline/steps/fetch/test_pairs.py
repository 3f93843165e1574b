"""pipeline/steps/fetch/pairs.py: what we lay out opens in img2dataset's and webdataset's tools, with their names."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from filters.images.decode import ImageLimits, store
from manifests.files import write_json, write_table
from manifests.shards import write_shard
from pipeline.steps.fetch.pairs import METADATA, Attempt, Result, Spool, dropped_of, pairs_table, samples, stats
from tests.support.picture_files import corners, encode

THEIR_COLUMNS = [
    "key", "url", "caption", "status", "error_message", "width", "height", "original_width", "original_height",
    "sha256",
]  # fmt: skip
THEIR_FIGURES = {"count", "successes", "failed_to_download", "failed_to_resize", "status_dict"}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Return a folder of one shard: two pictures, one that was not there, one that is no picture."""
    rows = [
        {"uid": n.to_bytes(16, "big"), "url": f"http://x.test/{n}", "text": f"text {n}", **dict.fromkeys(METADATA)}
        for n in range(4)
    ]
    picture = store(encode(corners(480, 320), "PNG"), ImageLimits(store_side=64))
    results = {}
    with open(tmp_path / "spool", "w+b") as file:
        spool = Spool(file)
        for row, reason in zip(rows, (None, "http_404", None, "not_an_image"), strict=True):
            status = 404 if reason == "http_404" else 200
            place = spool.put(picture.jpeg) if reason is None else (0, 0)
            results[row["uid"]] = Result((Attempt(status, reason),), None if reason else picture, *place)
        write_shard(tmp_path / "pairs" / "00000.tar", samples(rows, results, spool))
    write_table(tmp_path / "pairs" / "00000.parquet", pairs_table(rows, results))
    write_json(tmp_path / "pairs" / "00000_stats.json", stats(len(rows), dropped_of(results.values())))
    return tmp_path / "pairs"


def test_webdataset_reads_the_tar(pairs: Path) -> None:
    import webdataset

    found = list(
        webdataset.WebDataset(str(pairs / "00000.tar"), shardshuffle=False)
        .decode("pil")
        .to_tuple("__key__", "jpg", "txt", "json")
    )
    assert [key for key, *_ in found] == [n.to_bytes(16, "big").hex() for n in (0, 2)]
    for _, image, text, note in found:
        assert image.size == (96, 64) == (note["width"], note["height"])
        assert (note["original_width"], note["original_height"]) == (480, 320)
        assert text == note["caption"]
        assert list(note)[: len(THEIR_COLUMNS)] == THEIR_COLUMNS


def test_pandas_reads_the_table_under_their_names(pairs: Path) -> None:
    table = pq.read_table(pairs / "00000.parquet").to_pandas()
    assert list(table)[: len(THEIR_COLUMNS)] == THEIR_COLUMNS
    assert table["status"].tolist() == ["success", "failed_to_download", "success", "failed_to_resize"]
    assert table["error_message"].tolist() == [None, "http_404", None, "not_an_image"]


def test_the_figures_are_theirs(pairs: Path) -> None:
    figures = json.loads((pairs / "00000_stats.json").read_text())
    assert set(figures) >= THEIR_FIGURES
    assert [figures[name] for name in ("count", "successes", "failed_to_download", "failed_to_resize")] == [4, 2, 1, 1]
    assert figures["status_dict"] == {"success": 2, "http_404": 1, "not_an_image": 1}


def test_a_picture_made_smaller_is_what_their_resizer_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same size and, before compression, the same pixels: both shrink by area. From a PNG, since a JPEG may be decoded
    smaller at once."""
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from img2dataset.resizer import Resizer
    y, x = np.mgrid[0:300, 0:451] / 20.0
    picture = Image.fromarray(
        np.stack([127 + 120 * np.sin(x), 127 + 120 * np.cos(y), 127 + 120 * np.sin(x + y)], axis=-1).astype(np.uint8)
    )
    data = encode(picture, "PNG")
    made, width, height, *original, fault = Resizer(200, "keep_ratio", True, encode_quality=100)(io.BytesIO(data))
    ours = store(data, ImageLimits(store_side=200, jpeg_quality=100))
    assert fault is None
    assert (
        (ours.width, ours.height, ours.original_width, ours.original_height)
        == (width, height, *original)
        == (301, 200, 451, 300)
    )
    pixels = [np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).astype(int) for jpeg in (made, ours.jpeg)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 2
