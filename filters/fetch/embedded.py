"""Read what stands inside a picture against training: PLUS, TDMRep, rights and CAWG words of its XMP; and its C2PA
manifest.

PLUS: the property Data Mining of the IPTC Photo Metadata Standard 2023.1, its values in the PLUS License Data Format.
Free text refuses nothing, but for a few set phrases that are all of a value.
"""

import html
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from filters.fetch.entries import ENTRIES, REFUSING, refused_entries
from filters.fetch.optout import Receipt
from filters.fetch.preferences import signal_refuses, usage_refuses
from filters.fetch.provenance import c2pa_refusal
from filters.images.xmp import packets

PLUS, IPTC = "ns.useplus.org/ldf/", "iptc.org/std/Iptc4xmpExt/"
RIGHTS = "http://ns.adobe.com/xap/1.0/rights/"
NAMES = (b"DataMining", b"UsageTerms", b"reserv", b"training", b"data_mining", b"ai_inference")
"""What a packet holds that says anything of this: others are not parsed."""
PROHIBITED = "DMI-PROHIBITED"
PHRASES = {
    "noai", "noimageai", "noml", "no ai", "no ai training", "no ai/ml training", "no machine learning",
    "no generative ai", "no generative ai training", "no text and data mining", "no data mining", "no tdm",
}  # fmt: skip
RESERVED = re.compile(r"(?<![\w-])tdm-reservation\s*[:=]\s*1(?!\d)", re.IGNORECASE)
MAX_TEXT, MAX_DEPTH = 4096, 200  # characters of a value that are looked at; elements within one another
MAX_MARKS, MAX_PARSED = 60_000, 4 << 20
"""Elements and attributes, and bytes, that are parsed of all packets of a file together: what is over is searched as
text."""
NEAR = 400  # bytes between a property's name and its value in a packet that is no XML
MAX_HITS = 2_000  # places at which one rule looks in a packet that is no XML
CONTROLS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
LOOSE = re.compile(r"&(?!#?\w{1,40};)")

Kind = tuple[str, str]  # (what a property is read as, the entry that it is about)


@dataclass
class Budget:
    """What may still be parsed of a file: `marks`, elements and attributes, and `size` in bytes."""

    marks: int = MAX_MARKS
    size: int = MAX_PARSED

    def allows(self, packet: bytes) -> bool:
        """Take a packet's elements, attributes and bytes; say whether all of it may be parsed."""
        marks = packet.count(b"<") + packet.count(b"=")
        if marks > self.marks or len(packet) > self.size:
            return False
        self.marks, self.size = self.marks - marks, self.size - len(packet)
        return True


def embedded_refusal(data: bytes, obeyed: Collection[str]) -> Receipt | None:
    """Return what a file itself refuses, or None. `obeyed`: words of `fetch.opt_outs`. Raises nothing for odd files."""
    if "xmp" in obeyed:
        budget = Budget()
        for packet in packets(data):
            if receipt := xmp_refusal(packet, budget):
                return receipt
    return c2pa_refusal(data) if "c2pa" in obeyed else None


def xmp_refusal(packet: bytes, budget: Budget | None = None) -> Receipt | None:
    """Return what one XMP packet refuses, or None. A packet that is no XML, or over the budget, is searched as text."""
    plain = packet.replace(b"\0", b"")  # UTF-16 and padding
    if not any(name in plain for name in NAMES):
        return None
    budget = budget or Budget()
    if not budget.allows(plain):
        return _as_text(plain)
    reader = _Reader()
    reader.read(packet.rstrip(b"\0"))
    if reader.found or reader.whole:
        return reader.found or _as_text(reader.rest.replace(b"\0", b""))
    mended = _mended(plain)
    if mended != plain and budget.allows(mended):
        again = _Reader()
        again.read(mended, "utf-8")
        if again.found or again.whole:
            return again.found or _as_text(again.rest)
    return _as_text(mended)


def _mended(packet: bytes) -> bytes:
    """Return a packet as UTF-8 without what no XML may hold: bytes that are no UTF-8 are taken for Windows-1252, which
    Latin-1 is as a rule, control characters become blanks, a loose `&` is escaped."""
    try:
        text = packet.decode()
    except UnicodeDecodeError:
        text = "".join(_decoded(packet))
    return LOOSE.sub("&amp;", CONTROLS.sub(" ", text)).encode()


def _decoded(packet: bytes) -> Iterator[str]:
    for line in packet.splitlines(keepends=True):
        try:
            yield line.decode()
        except UnicodeDecodeError:
            yield line.decode("cp1252", "replace")


@dataclass
class _Reader:
    """One parse of a packet: the first refusal in it, and whether its root element came to its end.

    `kinds`: for each open element the properties within which it stands, the outermost of each kind; `rest`: what
    stands behind the root and is no more of it.
    """

    found: Receipt | None = None
    whole: bool = False
    rest: bytes = b""
    kinds: list[tuple[Kind, ...]] = field(default_factory=lambda: [()])
    texts: list[str] = field(default_factory=list)

    def read(self, packet: bytes, encoding: str | None = None) -> None:
        """Parse. A document type, which alone can define entities, ends it, and so does too deep a nesting."""
        from xml.parsers import expat

        parser = expat.ParserCreate(encoding, namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = _refuse_doctype
        try:
            parser.Parse(packet, True)
        except expat.ExpatError:
            self.rest = packet[parser.ErrorByteIndex :] if self.whole else b""
        except (_StopError, ValueError):
            pass

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self.texts) >= MAX_DEPTH:
            raise _StopError
        within = _within(self.kinds[-1], name)
        self.kinds.append(within)
        self.texts.append("")
        for attribute, value in attributes.items():
            self._look(_within(within, attribute), value)

    def _text(self, text: str) -> None:
        if self.texts and len(self.texts[-1]) < MAX_TEXT:
            self.texts[-1] += text

    def _end(self, _: str) -> None:
        self._look(self.kinds.pop(), self.texts.pop())
        self.whole = not self.texts

    def _look(self, kinds: tuple[Kind, ...], value: str) -> None:
        if not kinds or self.found or len(value) > MAX_TEXT or not (value := value.strip()):
            return
        if rule := _rule(kinds, value):
            self.found = Receipt.of(f"XMP {rule}", value)


class _StopError(Exception):
    """There is no reading on in this packet."""


def _refuse_doctype(*_: object) -> None:
    raise _StopError


def _within(kinds: tuple[Kind, ...], name: str) -> tuple[Kind, ...]:
    """Return the properties within which an element or attribute stands, itself among them: at most one of a kind."""
    namespace, _, local = name.rpartition(" ")
    kind = _kind(namespace, local)
    return kinds if kind is None or any(kind[0] == before for before, _ in kinds) else (*kinds, kind)


def _kind(namespace: str, name: str) -> Kind | None:
    """Return what an element or attribute is read as, None where it says nothing of this."""
    if name == "DataMining" and (PLUS in namespace or IPTC in namespace):
        return "plus:DataMining", ""
    if name == "UsageTerms" and namespace == RIGHTS:
        return "xmpRights:UsageTerms", ""
    if name in ("reservation", "reserve_tdm", "tdm-reservation") and "tdm" in namespace.lower():
        return "tdm:reservation", ""
    if entry := _entry(namespace, name):
        return "cawg:", entry
    return ("json", "") if name.endswith("training-mining") else None


def _rule(kinds: tuple[Kind, ...], value: str) -> str | None:
    """Return the name of the property whose value refuses, or None: the outermost decides."""
    for kind, entry in kinds:
        if kind == "plus:DataMining":
            return kind if _mining_refuses(value) else None
        if kind == "xmpRights:UsageTerms":
            return kind if _terms_refuse(value) else None
        if kind == "tdm:reservation":
            return kind if value.lower() in ("1", "true") else None
        if kind == "cawg:" and value.lower() in REFUSING:
            return f"cawg:{entry}"
        if kind == "json" and value.startswith("{"):
            refused = refused_entries(_json(value))
            return f"cawg:{refused[0][0].partition('.')[2]}" if refused else None
    return None


def _mining_refuses(value: str) -> bool:
    word = re.split(r"[/#:\s]", value)[-1].upper() if "DMI-" in value.upper() else value.upper()
    return word.startswith((PROHIBITED, "PROHIBITED"))


def _entry(namespace: str, name: str) -> str | None:
    """Return the entry of the training and data mining assertion that an element or attribute stands for."""
    prefix, dot, short = name.partition(".")
    if not dot:
        prefix, short = namespace.lower(), name
    return short if short in ENTRIES and ("cawg" in prefix or "c2pa" in prefix) else None


def _terms_refuse(value: str) -> bool:
    """Tell whether usage terms are a statement for machines: a word of PLUS, of a header, or one of the set phrases."""
    words = " ".join(value.lower().rstrip(".!").split())
    if words in PHRASES or PROHIBITED in value.upper() or RESERVED.search(value):
        return True
    listed = [part.strip() for part in words.split(",")]
    if set(listed) <= PHRASES | {"nofollow", "noindex", "noimageindex", "index", "follow"}:
        return not PHRASES.isdisjoint(listed)
    return signal_refuses(value) or usage_refuses(value)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _as_text(packet: bytes) -> Receipt | None:
    """Return what a packet that is no XML refuses: a value that stands close behind its property's name."""
    for find in (_mining_in, _reservation_in, _entry_in, _terms_in):
        if receipt := find(packet):
            return receipt
    return None


def _mining_in(packet: bytes) -> Receipt | None:
    for at in _places(packet, b"DMI-PROHIBITED"):
        word = MINING.match(packet, at)
        if word and packet.rfind(b"DataMining", max(0, at - NEAR), at) >= 0:
            return _said("plus:DataMining", word[0])
    return None


def _reservation_in(packet: bytes) -> Receipt | None:
    for at in _places(packet, b"tdm:reservation"):
        if RESERVES.match(packet, at):
            return _said("tdm:reservation", b"1")
    return None


def _entry_in(packet: bytes) -> Receipt | None:
    for word in (b"notAllowed", b"constrained"):
        for at in _places(packet, word):
            if names := NAMED.findall(packet, max(0, at - NEAR), at):
                return _said(f"cawg:{names[-1].decode()}", word)
    return None


def _terms_in(packet: bytes) -> Receipt | None:
    """Return the usage terms that are words for machines: each text and each quoted value behind the property's
    name."""
    for at in _places(packet, b"UsageTerms"):
        near = packet[at + len(b"UsageTerms") :][: NEAR * 2].partition(b"UsageTerms")[0]
        quoted = QUOTED.match(near)
        for found in [quoted[2]] if quoted else TEXTS.findall(near):
            value = html.unescape(found.decode("utf-8", "replace")).strip()
            if value and _terms_refuse(value):
                return Receipt.of("XMP xmpRights:UsageTerms", value)
    return None


def _places(packet: bytes, word: bytes) -> Iterator[int]:
    at = packet.find(word)
    for _ in range(MAX_HITS):
        if at < 0:
            return
        yield at
        at = packet.find(word, at + len(word))


def _said(rule: str, value: bytes) -> Receipt:
    return Receipt.of(f"XMP {rule}", value.decode("utf-8", "replace").strip())


RESERVES = re.compile(rb"""tdm:reservation(?:[^<>]{0,200}>\s{0,9}|\s{0,9}=\s{0,9}["'])1\s{0,9}["'<]""")
NAMED = re.compile("|".join(sorted(ENTRIES, key=len, reverse=True)).encode())
MINING = re.compile(rb"DMI-PROHIBITED[A-Z-]*")
QUOTED = re.compile(rb"""\s{0,9}=\s{0,9}(["'])(.{1,800}?)\1""", re.DOTALL)
TEXTS = re.compile(rb">([^<>]{1,800})")
