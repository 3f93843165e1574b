"""What a walk over a header says: an outline's defaults, and faults with a reason for the ledger and a detail for
logs."""

import pytest

from filters.images.header import ImageFault, Outline, cut


def test_an_outline_is_one_upright_whole_frame_unless_it_says_otherwise():
    outline = Outline("PNG", 48, 32, b"bytes")
    assert (outline.frames, outline.complete, outline.orientation, outline.plain) == (1, True, 1, False)
    assert (outline.profile, outline.metadata, outline.missing) == (None, (), "")


def test_a_fault_says_reason_and_detail():
    with pytest.raises(ImageFault, match=r"^corrupt: PNG of 0 x 5 pixels$") as caught:
        raise ImageFault("corrupt", "PNG of 0 x 5 pixels")
    assert (caught.value.reason, caught.value.detail) == ("corrupt", "PNG of 0 x 5 pixels")


def test_a_file_that_ends_too_early_names_the_place():
    fault = cut("TIFF", "directory")
    assert (fault.reason, fault.detail) == ("truncated", "TIFF ends within its directory")
