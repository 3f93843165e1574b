"""The demo's faults: each kind once, hosts that no DNS knows, and files that are broken as their reason says."""

import pytest
from PIL import Image

from filters.images.decode import ImageFault, ImageLimits, store
from manifests.reasons import REASONS
from pipeline.demo.faults import CAPTIONS, FAULTS, bodies, encode, host, served_kinds
from tests.support.small_web import picture


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return bodies(picture(5, 160, 120))


def test_hosts_lie_below_a_domain_that_is_never_real() -> None:
    assert host("tls") == "tls.demo.test"


def test_each_kind_stands_once_and_its_reason_is_in_the_table() -> None:
    kinds = [fault.kind for fault in FAULTS]
    assert len(set(kinds)) == len(kinds) == 22
    assert all(fault.urls for fault in FAULTS)
    status = {fault.reason for fault in FAULTS if fault.reason.startswith("http_")}
    assert status == {"http_404", "http_410", "http_503"}
    assert {fault.reason for fault in FAULTS} - status <= set(REASONS)


def test_served_kinds_are_those_with_a_made_up_host() -> None:
    elsewhere = {"bad-url", "blocked-scheme", "private-address", "dns"}
    assert set(served_kinds()) == {fault.kind for fault in FAULTS} - elsewhere
    (tls,) = (fault for fault in FAULTS if fault.kind == "tls")
    assert tls.urls == ("https://tls.demo.test/cat.jpg", "https://tls.demo.test/dog.jpg")


def test_each_file_is_refused_for_the_reason_of_its_kind(files) -> None:
    reasons = {host(fault.kind): fault.reason for fault in FAULTS}
    judged = 0
    for path, data in files.items():
        kind = path.partition(".")[0]
        if kind in ("short-body", "huge"):  # these are broken by how they are sent
            continue
        with pytest.raises(ImageFault) as caught:
            store(data, ImageLimits())
        assert caught.value.reason == reasons[path.partition("/")[0]], path
        judged += 1
    assert judged == 11


def test_a_fault_with_a_file_has_one_for_each_of_its_paths(files) -> None:
    served = {path.partition("/")[0] for path in files}
    urls = {url for fault in FAULTS if host(fault.kind) in served for url in fault.urls}
    assert {f"http://{path}" for path in files} == urls


def test_the_same_picture_gives_the_same_bytes(files) -> None:
    assert bodies(picture(5, 160, 120)) == files
    assert encode(Image.new("RGB", (2, 2)), "PNG").startswith(b"\x89PNG")


def test_captions_are_long_enough_for_any_text_rule() -> None:
    assert len(set(CAPTIONS)) == len(CAPTIONS) == 13
    assert all(len(caption.split()) >= 8 for caption in CAPTIONS)
