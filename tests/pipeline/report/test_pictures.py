"""Pictures inside the page: made small, and written as data addresses."""

import io

import pytest
from PIL import Image, UnidentifiedImageError

from pipeline.report.pictures import Picture, shrunk
from tests.support.report_runs import flat_jpeg


def size_and_format(data):
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size, picture.format


def test_a_picture_says_its_kind_and_holds_its_bytes():
    assert Picture(b"\x89PNG").uri == "data:image/png;base64,iVBORw=="
    assert Picture(b"\xff\xd8\xff").uri == "data:image/jpeg;base64,/9j/"


def test_the_long_side_is_bounded_and_a_small_picture_keeps_its_size():
    assert size_and_format(shrunk(flat_jpeg(1, 400, 100), 200)) == ((200, 50), "JPEG")
    assert size_and_format(shrunk(flat_jpeg(1, 100, 400), 200)) == ((50, 200), "JPEG")
    assert size_and_format(shrunk(flat_jpeg(1, 90, 60), 200)) == ((90, 60), "JPEG")


def test_a_picture_with_transparency_becomes_a_jpeg():
    out = io.BytesIO()
    Image.new("RGBA", (30, 20), (200, 0, 0, 128)).save(out, "PNG")
    assert size_and_format(shrunk(out.getvalue(), 200)) == ((30, 20), "JPEG")


def test_what_is_no_picture_raises():
    with pytest.raises(UnidentifiedImageError):
        shrunk(b"<html>", 200)
