"""What libtiff says of damage is a reason and never stands on stderr; what it warns of is nothing."""

import random

import pytest
from PIL import Image

from filters.images.decode import ImageFault, ImageLimits, store
from filters.images.libtiff import fault_of, listening
from tests.support.picture_files import corners, encode

CODED = ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg", "zstd", "lzma"]
FAX = ["group3", "group4", "tiff_ccitt"]


def tiff(compression: str) -> bytes:
    picture = corners(99, 70)
    options = {"tiffinfo": {65000: "a tag that libtiff does not know"}}
    return encode(picture.convert("1") if compression in FAX else picture, "TIFF", compression=compression, **options)


@pytest.mark.parametrize("compression", [*CODED, *FAX])
def test_whole_pictures_are_kept_without_a_word(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    stored = store(tiff(compression), ImageLimits())
    assert (stored.width, stored.height) == (99, 70)
    assert capfd.readouterr() == ("", "")


def damaged(compression: str) -> list[str]:
    rng, said = random.Random(3), []
    whole = encode(Image.effect_noise((99, 70), 90).convert("1"), "TIFF", compression=compression)
    for _ in range(10):
        data = bytearray(whole)
        for _ in range(6):
            data[rng.randrange(8, len(data) - 200)] ^= 1 << rng.randrange(8)
        try:
            store(bytes(data), ImageLimits())
        except ImageFault as fault:
            said.append(fault.detail)
    return said


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group4"])
def test_damage_that_pillow_shows_all_the_same_is_corrupt(compression: str, capfd: pytest.CaptureFixture[str]) -> None:
    said = damaged(compression)
    assert len(said) >= 8
    assert any(detail.startswith("TIFF: Fax") and "%" not in detail for detail in said)
    assert capfd.readouterr() == ("", "")


def test_what_counts_of_what_libtiff_says() -> None:
    unknown, bad = "TIFFReadDirectory: Unknown field with tag", "Fax3Decode1D: Bad code word at line"
    fault = fault_of([unknown, bad])
    assert fault is not None
    assert (fault.reason, fault.detail) == ("corrupt", f"TIFF: {bad}")
    assert fault_of([unknown, "TIFFFetchNormalTag: Defined set_get_field_type", "Fax3Decode1D: Premature EOL"]) is None


def test_what_was_said_of_one_picture_is_not_of_the_next() -> None:
    assert damaged("group4")
    with listening() as told:
        assert told == []
    assert store(tiff("group4"), ImageLimits()).width == 99
