"""Marks of stock agencies: real pictures stamped with them, and boxes whose areas and shares are worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from filters.scorers.stock_mark import MOST_READ, StockMark, resized, straightened
from tests.support.museum import works
from tests.support.small_web import picture


def box(left, top, width, height):
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


class Fake(StockMark):
    """A finder and a reader of fixed answers, on pictures of 100 x 100 pixels."""

    def __init__(self, boxes, words=()):
        self.side, self.asked, self.words = 100, [], iter(words)
        self.find = lambda bgr: (boxes, 0.1)
        self.read = self._read

    def _read(self, crops):
        self.asked.append(crops[0].shape[:2])
        return [(next(self.words, "plain"), 0.9)], 0.1


def evaluated(boxes, words=()):
    pytest.importorskip("cv2")
    fake = Fake(boxes, words)
    return fake.evaluate(Image.new("RGB", (50, 50))), fake.asked


def test_text_that_is_no_mark_counts_by_its_share_of_the_picture():
    """20 x 10 and 30 x 20 of 100 x 100 pixels are 8 %: 0.49 * 0.08 = 0.0392. The larger one is read first."""
    value, asked = evaluated([box(0, 0, 20, 10), box(40, 40, 30, 20)])
    assert value == pytest.approx(0.0392)
    assert asked == [(20, 30), (10, 20)]
    slanted = [[50, 0], [100, 50], [50, 100], [0, 50]]  # a square on its corner: half of the picture
    assert evaluated([slanted])[0] == pytest.approx(0.245)
    assert evaluated(None) == (0.0, [])


def test_boxes_that_overlap_never_reach_a_half():
    assert evaluated([box(0, 0, 100, 100)] * 3)[0] == pytest.approx(0.49)


def test_reading_stops_at_the_first_mark():
    value, asked = evaluated([box(0, 0, 40, 40), box(50, 0, 30, 30), box(0, 50, 20, 20)], ["plain", "alamy"])
    assert (value, len(asked)) == (1.0, 2)


def test_small_letters_and_more_than_six_boxes_are_not_read():
    assert evaluated([box(0, 0, 90, 7)], ["alamy"])[1] == []  # 7 pixels high
    value, asked = evaluated([box(0, 0, 20, 20)] * 9, ["plain"] * MOST_READ + ["alamy"] * 3)
    assert len(asked) == MOST_READ == 6
    assert value == pytest.approx(0.49 * 9 * 400 / 10_000)


def test_a_picture_is_brought_to_one_long_side_in_bgr():
    bgr = resized(Image.new("RGB", (50, 20), (1, 2, 3)), 100)
    assert (bgr.shape, bgr.dtype, bgr[0, 0].tolist()) == ((40, 100, 3), np.uint8, [3, 2, 1])
    assert resized(Image.new("RGB", (3, 3000)), 100).shape == (100, 1, 3)  # 0.1 pixels are one


@pytest.fixture(scope="module")
def stock_mark():
    pytest.importorskip("rapidocr_onnxruntime")
    return StockMark(512)


@pytest.mark.parametrize("tiled", [False, True])
def test_marks_are_read_and_clean_pictures_are_not(stock_mark, tiled):
    from pipeline.demo.edits import decode, stamped

    some = works(8)
    clean = stock_mark.encode(some, {})["stock_mark"]
    assert (clean < 0.5).all()
    marked = [
        decode(stamped(work, word, 200, tiled))
        for work, word in zip(some, ("shutterstock", "dreamstime") * 4, strict=True)
    ]
    assert (stock_mark.encode(marked, {})["stock_mark"] == 1).mean() >= 0.75  # measured on 29: 0.93 tiled, 1.0 centred


def test_text_that_is_no_mark_stays_below_a_half(stock_mark):
    from PIL import ImageDraw, ImageFont

    page = Image.new("RGB", (400, 300), "white")
    for line in range(6):
        ImageDraw.Draw(page).text((10, 10 + 48 * line), "ORDINARY WORDS", fill="black", font=ImageFont.load_default(40))
    value = stock_mark.evaluate(page)
    assert 0.1 < value < 0.49
    assert stock_mark.evaluate(Image.new("RGB", (400, 300), "white")) == 0
    ImageDraw.Draw(page).text((10, 200), "shutterstock", fill="red", font=ImageFont.load_default(60))
    assert stock_mark.evaluate(page) == 1


def test_odd_shapes_are_no_trouble(stock_mark):
    for size in ((1, 1), (2000, 3), (3, 2000), (31, 31)):
        assert 0 <= stock_mark.evaluate(picture(1, *size)) < 0.5


def test_text_that_runs_upwards_is_turned():
    pytest.importorskip("cv2")
    grey = np.zeros((100, 50, 3), np.uint8)
    assert straightened(grey, np.array([[0, 0], [20, 0], [20, 80], [0, 80]], np.float32)).shape == (20, 80, 3)
    assert straightened(grey, np.array([[0, 0], [40, 0], [40, 10], [0, 10]], np.float32)).shape == (10, 40, 3)
