"""Read what stands inside a picture against training: PLUS, TDMRep, rights and CAWG words of its XMP; and its C2PA
manifest.

PLUS: the property Data Mining of the IPTC Photo Metadata Standard 2023.1, its values in the PLUS License Data Format.
Free text refuses nothing, but for a few set phrases that are all of a value.
"""

import contextlib
import json
import re
from collections.abc import Collection
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
NEAR = 400  # bytes between a property's name and its value in a packet that is no XML

Path = list[tuple[str, str]]  # (namespace, name) of each element and attribute, the outermost first


def embedded_refusal(data: bytes, obeyed: Collection[str]) -> Receipt | None:
    """Return what a file itself refuses, or None. `obeyed`: words of `fetch.opt_outs`. Raises nothing for odd files."""
    if "xmp" in obeyed:
        for packet in packets(data):
            if receipt := xmp_refusal(packet):
                return receipt
    return c2pa_refusal(data) if "c2pa" in obeyed else None


def xmp_refusal(packet: bytes) -> Receipt | None:
    """Return what one XMP packet refuses, or None. A packet that is no XML is searched as text."""
    plain = packet.replace(b"\0", b"")  # UTF-16 and padding
    if not any(name in plain for name in NAMES):
        return None
    reader = _Reader()
    reader.read(packet)
    return reader.found or (None if reader.whole else _as_text(plain))


@dataclass
class _Reader:
    """One parse of a packet: the first refusal in it, and whether its root element came to its end."""

    found: Receipt | None = None
    whole: bool = False
    path: Path = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def read(self, packet: bytes) -> None:
        """Parse. A document type, which alone can define entities, ends it, and so does too deep a nesting."""
        from xml.parsers import expat

        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = _refuse_doctype
        with contextlib.suppress(expat.ExpatError, _StopError, ValueError):
            parser.Parse(packet.rstrip(b"\0"), True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self.path) >= MAX_DEPTH:
            raise _StopError
        self.path.append(_split(name))
        self.texts.append("")
        for attribute, value in attributes.items():
            self._look([*self.path, _split(attribute)], value)

    def _text(self, text: str) -> None:
        if self.texts and len(self.texts[-1]) < MAX_TEXT:
            self.texts[-1] += text

    def _end(self, _: str) -> None:
        self._look(self.path, self.texts.pop())
        self.path.pop()
        self.whole = not self.path

    def _look(self, path: Path, value: str) -> None:
        value = value.strip()
        if self.found is None and value and len(value) <= MAX_TEXT and (rule := _rule(path, value)):
            self.found = Receipt.of(f"XMP {rule}", value)


class _StopError(Exception):
    """There is no reading on in this packet."""


def _refuse_doctype(*_: object) -> None:
    raise _StopError


def _split(name: str) -> tuple[str, str]:
    namespace, _, local = name.rpartition(" ")
    return namespace, local


def _rule(path: Path, value: str) -> str | None:
    """Return the name of the property whose value refuses, or None."""
    for namespace, name in path:
        if name == "DataMining" and (PLUS in namespace or IPTC in namespace):
            word = re.split("[/#]", value)[-1].upper() if "DMI-" in value.upper() else value.upper()
            return "plus:DataMining" if word.startswith((PROHIBITED, "PROHIBITED")) else None
        if name == "UsageTerms" and namespace == RIGHTS:
            return "xmpRights:UsageTerms" if _terms_refuse(value) else None
        if name in ("reservation", "reserve_tdm", "tdm-reservation") and "tdm" in namespace.lower():
            return "tdm:reservation" if value.lower() in ("1", "true") else None
        if (entry := _entry(namespace, name)) and value.lower() in REFUSING:
            return f"cawg:{entry}"
        if name.endswith("training-mining") and value.startswith("{"):
            refused = refused_entries(_json(value))
            return f"cawg:{refused[0][0].partition('.')[2]}" if refused else None
    return None


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
    text = packet.decode("latin-1")
    for rule, value, names in AS_TEXT:
        for match in value.finditer(text):
            before = text[max(0, match.start() - NEAR) : match.start()]
            if name := names.findall(before):
                return Receipt.of(f"XMP {rule}{name[-1] if rule == 'cawg:' else ''}", match[0].strip("\"'<>= \n"))
    return None


AS_TEXT = (
    ("plus:DataMining", re.compile(r"DMI-PROHIBITED[A-Z-]*"), re.compile("DataMining")),
    ("tdm:reservation", re.compile(r"""(?:>\s{0,9}|=\s{0,9}["'])1\s{0,9}["'<]"""), re.compile(r"tdm:reservation$")),
    ("cawg:", re.compile("notAllowed|constrained"), re.compile("|".join(sorted(ENTRIES, key=len, reverse=True)))),
)
"""(rule, what refuses, what stands before it)."""
