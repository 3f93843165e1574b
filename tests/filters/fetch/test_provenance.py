"""Refusals in C2PA manifests: by c2pa-python and by their bytes alone, the same receipt; nobody is asked over the
network."""

import contextlib
import socket
import threading
import time
from typing import Any

import pytest

from filters.fetch import provenance
from filters.fetch.embedded import embedded_refusal
from filters.fetch.optout import OPT_OUTS, Receipt
from filters.fetch.provenance import c2pa_refusal
from tests.support.refusing_files import jpeg_with, packet, standard
from tests.support.signed_files import assertion, cbor, jpeg_in_segments, manifest, png_with_boxes, signed

REFUSED = Receipt("C2PA cawg.training-mining", "cawg.ai_training: notAllowed")


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "find_spec", lambda name: None)


@pytest.fixture(params=["package", "bytes"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Read with the package, and without it."""
    pytest.importorskip("c2pa")
    if request.param == "bytes":
        monkeypatch.setattr(provenance, "find_spec", lambda name: None)
    return str(request.param)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_signed_refusal_is_found_in_every_format(way: str, format_: str) -> None:
    data = signed(format_, assertion("notAllowed"))
    assert c2pa_refusal(data) == embedded_refusal(data, OPT_OUTS) == REFUSED
    assert embedded_refusal(data, ["xmp"]) is None
    assert c2pa_refusal(signed(format_, assertion("allowed"))) is None
    assert c2pa_refusal(signed(format_)) is None


def test_every_entry_that_refuses_stands_in_the_receipt(way: str) -> None:
    uses = {"data_mining": "constrained", "ai_training": "allowed", "ai_generative_training": "notAllowed"}
    receipt = c2pa_refusal(signed("PNG", assertion(**uses)))
    value = "cawg.ai_generative_training: notAllowed, cawg.data_mining: constrained"
    assert receipt == Receipt("C2PA cawg.training-mining", value)
    older = assertion("notAllowed", "c2pa.training-mining")
    assert c2pa_refusal(signed("PNG", older)) == Receipt("C2PA c2pa.training-mining", "c2pa.ai_training: notAllowed")


def test_a_part_that_refuses_counts_where_the_whole_says_nothing(way: str) -> None:
    part = signed("PNG", assertion("notAllowed"))
    assert c2pa_refusal(signed("PNG", parent=part)) == REFUSED


def test_what_the_whole_allows_counts() -> None:
    pytest.importorskip("c2pa")
    part = signed("PNG", assertion("notAllowed"))
    assert c2pa_refusal(signed("PNG", assertion("allowed"), parent=part)) is None


def test_a_picture_that_was_changed_after_it_was_signed_still_refuses(way: str) -> None:
    data = bytearray(signed("JPEG", assertion("notAllowed")))
    data[-40] ^= 1
    assert c2pa_refusal(bytes(data)) == REFUSED


def test_a_manifest_that_no_reader_takes_hides_nothing() -> None:
    boxes = manifest(cbor(ai_training="notAllowed", data_mining="allowed"))
    assert c2pa_refusal(png_with_boxes(boxes)) == REFUSED
    assert c2pa_refusal(png_with_boxes(manifest(cbor(ai_training="allowed", data_mining="allowed")))) is None
    data = signed("PNG", assertion("notAllowed")) if _has_package() else png_with_boxes(boxes)
    assert c2pa_refusal(data[:-400]) == REFUSED
    json = b'{"entries": {"cawg.ai_inference": {"use": "constrained", "constraint_info": "ask"}}}'
    receipt = c2pa_refusal(png_with_boxes(manifest(json, kind=b"json")))
    assert receipt == Receipt("C2PA cawg.training-mining", "cawg.ai_inference: constrained")


def _has_package() -> bool:
    from importlib.util import find_spec

    return find_spec("c2pa") is not None


@pytest.mark.parametrize("size", range(60, 260, 7))
def test_an_assertion_that_is_cut_by_segments_is_put_together(without_package: None, size: int) -> None:
    boxes = manifest(cbor(ai_training="notAllowed"))
    assert c2pa_refusal(jpeg_in_segments(boxes, size)) == REFUSED


def test_a_flipped_bit_anywhere_in_the_boxes_hides_no_refusal() -> None:
    """Wherever the words themselves are whole: a reader that finds no manifest, or an empty one, is not the last."""
    pytest.importorskip("c2pa")
    data = signed("PNG", assertion("notAllowed"))
    first, last = data.index(b"jumb"), data.index(b"cawg.training-mining")
    for at in range(first + 4, min(last, first + 160), 3):
        flipped = bytearray(data)
        flipped[at] ^= 1
        assert c2pa_refusal(bytes(flipped)) == REFUSED, at


def test_words_outside_an_assertion_refuse_nothing(without_package: None) -> None:
    assert c2pa_refusal(b"jumb" + b"cawg.training-miningcawg.ai_training" * 1_000_000) is None
    assert c2pa_refusal(b"jumb cawg.ai_training use notAllowed") is None
    assert c2pa_refusal(b"cawg.training-mining cawg.ai_training\xa1cusejnotAllowed") is None  # no box
    far = b"jumb cawg.training-mining" + bytes(3000) + b"cawg.ai_training\xa1cusejnotAllowed"
    assert c2pa_refusal(far) is None
    other = png_with_boxes(manifest(cbor(future="notAllowed")))
    assert c2pa_refusal(other) is None


def test_no_remote_manifest_is_fetched() -> None:
    """The XMP of a picture names where its manifest lies: nobody asks there."""
    pytest.importorskip("c2pa")
    asked: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        server.settimeout(0.5)

        def accept() -> None:
            with contextlib.suppress(TimeoutError):
                asked.append(server.accept()[0])

        listening = threading.Thread(target=accept)
        listening.start()
        terms = 'xmlns:dcterms="http://purl.org/dc/terms/"'
        xmp = packet(attributes=f'{terms} dcterms:provenance="http://127.0.0.1:{port}/m.c2pa"')
        data = jpeg_with(standard(xmp))
        assert provenance._store(data) is None
        assert c2pa_refusal(data + b"jumb") is None
        listening.join()
    assert asked == []


def test_floods_cost_little(without_package: None) -> None:
    started = time.process_time()
    assert c2pa_refusal(b"jumb" + b"cawg.training-mining" * 100_000) is None
    assert c2pa_refusal(b"jumb cawg.training-mining" + b"cawg.ai_training" * 100_000) is None
    assert c2pa_refusal(b"\xff\xd8" + b"\xff\xeb\0\2" * 500_000 + b"jumb") is None
    assert time.process_time() - started < 10
