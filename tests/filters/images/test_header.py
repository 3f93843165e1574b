"""What a walk over a header says: an outline's defaults, and faults with a reason for the ledger and a detail for
logs."""

import pytest

from filters.images.header import Blame, ImageFault, Outline, cut


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


@pytest.mark.parametrize(
    ("cut_short", "error", "reason"),
    [
        (None, OSError("image file is truncated"), "corrupt"),
        ("truncated", OSError("image file is Truncated"), "truncated"),
        ("truncated", SyntaxError("not a GIF"), "corrupt"),
        ("", ValueError("any"), "truncated"),
        ("", ImageFault("animated", "its own"), "animated"),
    ],
)
def test_what_a_decoder_raises_is_the_pictures_fault(cut_short, error, reason):
    with pytest.raises(ImageFault) as caught, Blame("GIF", cut_short):
        raise error
    assert caught.value.reason == reason
    assert caught.value is error or caught.value.detail == f"GIF: {type(error).__name__}: {error}"


def test_an_interrupt_is_nobodys_fault():
    with pytest.raises(KeyboardInterrupt), Blame("GIF"):
        raise KeyboardInterrupt
