"""What stands inside a picture against training: PLUS, TDMRep, rights and CAWG words of XMP; nothing of free text."""

import time
import zlib

import pytest

from filters.fetch.embedded import embedded_refusal, xmp_refusal
from filters.fetch.optout import OPT_OUTS, Receipt
from tests.support.refusing_files import (
    SPACES,
    VOCAB,
    files_with,
    jpeg_with,
    packet,
    png_with,
    refusing,
    standard,
)

PROHIBITED = (
    "DMI-PROHIBITED",
    "DMI-PROHIBITED-AIMLTRAINING",
    "DMI-PROHIBITED-GENAIMLTRAINING",
    "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING",
    "DMI-PROHIBITED-SEECONSTRAINT",
    "DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR",
    "DMI-PROHIBITED-SEELINKEDRIGHTSEXPR",
)


@pytest.mark.parametrize("place", files_with(b"<x:xmpmeta/>"))
def test_plus_data_mining_is_found_in_every_format(place: str) -> None:
    receipt = embedded_refusal(files_with(refusing())[place], OPT_OUTS)
    assert receipt == Receipt("XMP plus:DataMining", f"{VOCAB}DMI-PROHIBITED-AIMLTRAINING")
    assert embedded_refusal(files_with(refusing())[place], ["noai", "aipref"]) is None
    assert embedded_refusal(files_with(refusing("DMI-ALLOWED"))[place], OPT_OUTS) is None


@pytest.mark.parametrize("value", PROHIBITED)
def test_every_value_of_plus_that_prohibits_and_every_way_to_write_it(value: str) -> None:
    ways = (
        packet(f"<plus:DataMining>{VOCAB}{value}</plus:DataMining>"),
        packet(f"<plus:DataMining>\n  {value}\n</plus:DataMining>"),
        packet(f'<plus:DataMining rdf:resource="{VOCAB}{value}"/>'),
        packet(attributes=f'plus:DataMining="{VOCAB}{value}"'),
        packet(f"<plus:DataMining><rdf:Bag><rdf:li>{VOCAB}{value}</rdf:li></rdf:Bag></plus:DataMining>"),
        packet(f"<iptc:DataMining>{value.lower()}</iptc:DataMining>"),
        packet(f"<plus:DataMining>{value}</plus:DataMining>").replace(b"http://ns.useplus", b"https://ns.useplus"),
        packet(f"<plus:DataMining>{value}</plus:DataMining>".replace("-", "&#45;")),
        packet(f"<plus:DataMining>{value}</plus:DataMining>", head="<?xpacket begin='\ufeff' id='W5M0Mp'?>"),
    )
    for way in ways:
        receipt = xmp_refusal(way)
        assert receipt is not None, way
        assert receipt.rule == "XMP plus:DataMining"
        assert receipt.value.upper().endswith(value)


@pytest.mark.parametrize(
    "xmp",
    [
        packet(),
        packet("<plus:DataMining>DMI-UNSPECIFIED</plus:DataMining>"),
        packet(f"<plus:DataMining>{VOCAB}DMI-ALLOWED</plus:DataMining>"),
        packet("<plus:DataMining></plus:DataMining>"),
        packet("<dc:DataMining>DMI-PROHIBITED</dc:DataMining>"),  # another namespace: another property
        packet("<plus:OtherConstraints>No AI training. DataMining of this picture is sold.</plus:OtherConstraints>"),
        packet("<!-- <plus:DataMining>DMI-PROHIBITED</plus:DataMining> -->"),
        packet("<dc:description>DMI-PROHIBITED is a value of plus:DataMining</dc:description>"),
        packet("<xmpRights:Marked>True</xmpRights:Marked><xmpRights:UsageTerms/>"),
        packet("<tdm:reservation>0</tdm:reservation>"),
        packet("<dc:reservation>1</dc:reservation>"),
        packet("<cawg:ai_training>allowed</cawg:ai_training>"),
        packet("<dc:ai_training>notAllowed</dc:ai_training>"),
        packet('<cawg:training-mining>{"entries": {"cawg.ai_training": {"use": "allowed"}}}</cawg:training-mining>'),
        packet("<cawg:training-mining>{broken</cawg:training-mining>"),
    ],
)
def test_what_refuses_nothing(xmp: bytes) -> None:
    assert xmp_refusal(xmp) is None


def terms(text: str) -> bytes:
    alternatives = f'<rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt>'
    return packet(f"<xmpRights:UsageTerms>{alternatives}</xmpRights:UsageTerms>")


@pytest.mark.parametrize(
    "text",
    [
        "noai", "NoAI, noimageai", "noindex, noai", "No AI training.", "NO AI", "No  text and\ndata mining",
        f"{VOCAB}DMI-PROHIBITED", "tdm-reservation: 1", "Content-Signal: ai-train=no", "train-ai=n, search=y",
    ],
)  # fmt: skip
def test_usage_terms_that_are_words_for_machines_refuse(text: str) -> None:
    assert xmp_refusal(terms(text)) == Receipt("XMP xmpRights:UsageTerms", " ".join(text.split(" ")).replace("\n", "?"))


@pytest.mark.parametrize(
    "text",
    [
        "All rights reserved.", "CC BY 4.0", "noindex", "index, follow", "Ask before you train an AI with it",
        "No use without a licence; see our page on AI training", "tdm-reservation: 0", "ai-train=yes", "train-ai=y",
    ],
)  # fmt: skip
def test_usage_terms_in_prose_refuse_nothing(text: str) -> None:
    assert xmp_refusal(terms(text)) is None


def test_tdm_and_cawg_words_in_xmp() -> None:
    assert xmp_refusal(packet("<tdm:reservation>1</tdm:reservation>")) == Receipt("XMP tdm:reservation", "1")
    assert xmp_refusal(packet(attributes='tdm:reservation="1"')) == Receipt("XMP tdm:reservation", "1")
    for entry in ("ai_training", "ai_generative_training", "data_mining", "ai_inference"):
        ways = (
            f"<cawg:{entry}>notAllowed</cawg:{entry}>",
            f'<cawg:training-mining><cawg:{entry} cawg:use="notAllowed"/></cawg:training-mining>',
            f"<cawg:x><cawg:c2pa.{entry}><cawg:use>notAllowed</cawg:use></cawg:c2pa.{entry}></cawg:x>",
        )
        assert [xmp_refusal(packet(way)) for way in ways] == [Receipt(f"XMP cawg:{entry}", "notAllowed")] * 3
    asked = xmp_refusal(packet(attributes='cawg:ai_training="constrained"'))
    assert asked == Receipt("XMP cawg:ai_training", "constrained")
    json = '{"entries": {"cawg.ai_training": {"use": "notAllowed"}}}'
    found = xmp_refusal(packet(f"<cawg:training-mining>{json}</cawg:training-mining>"))
    assert found == Receipt("XMP cawg:ai_training", json)


CLEAR = f"<plus:DataMining>{VOCAB}DMI-PROHIBITED</plus:DataMining>"


@pytest.mark.parametrize(
    "broken",
    [
        packet(CLEAR + "<never:declared/>"),
        packet(CLEAR).replace(b"</rdf:Description>", b""),
        packet("<dc:title>a & b</dc:title>" + CLEAR),
        packet("<dc:title>\x01</dc:title>" + CLEAR),
        packet(CLEAR)[:-30],
        packet(CLEAR).replace(f'xmlns:plus="{SPACES["plus"]}"'.encode(), b""),
        packet(CLEAR, head="<!DOCTYPE x [<!ENTITY a 'b'>]>"),
        b"\xff\xfe garbage" + packet(CLEAR),
        packet("<dc:a>" * 300 + CLEAR + "</dc:a>" * 300),
        packet("<dc:title>caf\u00e9</dc:title>" + CLEAR).decode().encode("latin-1"),
    ],
)
def test_markup_that_is_no_xml_hides_no_clear_refusal(broken: bytes) -> None:
    receipt = xmp_refusal(broken)
    assert receipt is not None
    assert receipt.rule == "XMP plus:DataMining"
    assert receipt.value.endswith("DMI-PROHIBITED")
    assert embedded_refusal(jpeg_with(standard(broken)), OPT_OUTS) == receipt


def test_other_words_in_markup_that_is_no_xml() -> None:
    assert xmp_refusal(packet("<tdm:reservation>1</tdm:reservation>")[:-20]) == Receipt("XMP tdm:reservation", "1")
    assert xmp_refusal(packet(attributes='tdm:reservation="1"')[:-20]) == Receipt("XMP tdm:reservation", "1")
    assert xmp_refusal(packet("<tdm:reservation>0</tdm:reservation>")[:-20]) is None
    assert xmp_refusal(packet('<cawg:ai_training cawg:use="notAllowed"/>')[:-20]) == Receipt(
        "XMP cawg:ai_training", "notAllowed"
    )
    assert xmp_refusal(packet("<plus:DataMining>DMI-ALLOWED</plus:DataMining>")[:-20]) is None


def test_utf_16_is_read() -> None:
    receipt = xmp_refusal(packet(CLEAR).decode().encode("utf-16"))
    assert receipt == Receipt("XMP plus:DataMining", f"{VOCAB}DMI-PROHIBITED")


def test_entities_are_not_expanded_and_floods_cost_little() -> None:
    laughs = "".join(f"<!ENTITY a{n} '{f'&a{n - 1};' * 10}'>" for n in range(1, 20))
    bomb = packet("<plus:DataMining>&a19;</plus:DataMining>", head=f"<!DOCTYPE x [<!ENTITY a0 'x'>{laughs}]>")
    started = time.process_time()
    assert xmp_refusal(bomb) is None
    assert xmp_refusal(b"<x:xmpmeta DataMining " + b"<a>" * 1_000_000) is None
    assert xmp_refusal(b"DataMining" * 300_000) is None
    assert xmp_refusal(b"training notAllowed " * 200_000) is None
    assert xmp_refusal(packet("<plus:DataMining>" + "x" * 3_000_000 + "</plus:DataMining>")) is None
    assert time.process_time() - started < 10


def test_floods_of_elements_of_any_file_cost_seconds_and_hide_no_clear_refusal() -> None:
    """Each takes a third of a second on a quiet machine; the limit tells that from what grows with its square."""
    deep = "<training>" * 198 + "<a>b</a>" * 400_000 + "</training>" * 198
    wide = "<plus:DataMining>" + "<a>b</a>" * 400_000 + "</plus:DataMining>"
    many = "".join(f' a{n}="training"' for n in range(200_000))
    lines = "<plus:DataMining/>" + "\n" * 4_000_000
    floods = (deep, wide, f"<training{many}/>", lines, "UsageTerms>" * 350_000, "DMI-PROHIBITED" * 280_000)
    for flood in (*floods, "constrained " * 340_000, "tdm:reservation" * 270_000, "training &" * 400_000):
        plain = f'<x:xmpmeta xmlns:plus="{SPACES["plus"]}">{flood}</x:xmpmeta>'.encode()
        chunk = b"XML:com.adobe.xmp\0\0" + zlib.compress(plain, 1)
        data = png_with(b"zTXt", chunk)
        four = data[:33] + data[33 : 33 + 12 + len(chunk)] * 3 + data[33:]
        started = time.process_time()
        assert embedded_refusal(four, OPT_OUTS) is None, flood[:20]
        assert time.process_time() - started < 12, flood[:20]
    hidden = packet(CLEAR + "<a>b</a>" * 400_000)
    assert xmp_refusal(hidden) == Receipt("XMP plus:DataMining", "DMI-PROHIBITED")


def test_a_refusal_behind_decoys_is_found() -> None:
    decoy = packet("<dc:title>DataMining</dc:title>")
    for count in (70, 5_000):
        data = jpeg_with(standard(packet())) + decoy * count + packet(CLEAR)
        receipt = embedded_refusal(data, OPT_OUTS)
        assert receipt is not None
        assert receipt.value.endswith("DMI-PROHIBITED")


@pytest.mark.parametrize("creator", ["Ren\u00e9", "\u201cA\u201d \u0096 \x01 & co"])
@pytest.mark.parametrize("text", ["No AI training", "noai, noimageai", "DMI-PROHIBITED", "tdm-reservation: 1"])
def test_bytes_of_another_encoding_hide_no_usage_terms(creator: str, text: str) -> None:
    body = f"<dc:creator>{creator}</dc:creator>"
    xmp = terms(text).replace(b"<xmpRights:", body.encode("cp1252", "replace") + b"<xmpRights:", 1)
    assert xmp_refusal(xmp) == Receipt("XMP xmpRights:UsageTerms", text)
    assert xmp_refusal(xmp[:-40]) == Receipt("XMP xmpRights:UsageTerms", text)  # no XML at all
    quoted = packet(attributes=f'xmpRights:UsageTerms="{text}" dc:title="noai"')
    assert xmp_refusal(quoted.replace(b'noai"', b'Ren\xe9"')) == Receipt("XMP xmpRights:UsageTerms", text)


@pytest.mark.parametrize("text", ["All rights reserved", "No use for AI training without a licence", "noindex"])
def test_usage_terms_in_prose_refuse_nothing_in_a_damaged_packet(text: str) -> None:
    for xmp in (terms(text), packet(attributes=f'xmpRights:UsageTerms="{text}" dc:title="noai"')):
        assert xmp_refusal(xmp[:-40]) is None
        assert xmp_refusal(xmp.replace(b"</x:", b"\xe9</x:")) is None


def test_a_second_root_of_a_packet_is_read() -> None:
    xmp = packet() + b"\n" + packet(CLEAR)
    for way in (xmp, packet() + b"junk" + packet(CLEAR)):
        receipt = embedded_refusal(png_with(b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(way)), OPT_OUTS)
        assert receipt is not None
        assert receipt.rule == "XMP plus:DataMining"


@pytest.mark.parametrize("value", ["PLUS:DMI-PROHIBITED-AIMLTRAINING", "plus:dmi-prohibited", "x/y#DMI-PROHIBITED"])
def test_a_value_of_plus_with_a_prefix_refuses(value: str) -> None:
    assert xmp_refusal(refusing(value).replace(VOCAB.encode(), b"")) == Receipt("XMP plus:DataMining", value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_other_prefixes_and_wide_packets_in_plain_sight_refuse(encoding: str) -> None:
    text = packet(CLEAR).decode().replace("x:xmpmeta", "q:xmpmeta").replace("xmlns:x=", "xmlns:q=")
    text = text.replace("rdf:", "r:").replace("xmlns:rdf", "xmlns:r")
    data = jpeg_with(standard(packet())) + b"\xff\xd9" + text.encode(encoding)
    assert embedded_refusal(data, OPT_OUTS) == Receipt("XMP plus:DataMining", f"{VOCAB}DMI-PROHIBITED")
