"""Read what a site says against use for training: in headers of its answers, in tdmrep.json, and in robots.txt."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from filters.fetch.preferences import FIELDS, STATEMENTS, WORDS
from filters.fetch.robots import RobotsRules, matches, pattern_of
from filters.fetch.site_text import text_of

DIRECTIVES = ("noai", "noimageai", "noml", "noindex", "noimageindex", "none")
"""Directives of X-Robots-Tag that keep a picture out; `none` is short for noindex, nofollow."""
FORMER = (*DIRECTIVES, "tdmrep")
"""Words that `fetch.opt_outs` had first: they alone stand in the key of a shard whose recipe obeys all later ones."""
LATER = ("content-signal", "aipref", "xmp", "c2pa")
OPT_OUTS = (*FORMER, *LATER)
KNOWN = {*DIRECTIVES, "all", "index", "follow", "nofollow", "noarchive", "nosnippet", "notranslate"}
"""Directives that some write with blanks between them."""
VALUED = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}
"""Directives that have a colon of their own: what stands before it is no agent."""
AGENT = re.compile(r"[a-z0-9_.+*-]+(?: [a-z0-9_.+*-]+)*")
MAX_TDM_BYTES = 1 << 20
MAX_TDM_RULES = 10_000
SHOWN = 200  # characters of a value that are kept


@dataclass(frozen=True)
class Receipt:
    """What a refusal rests on: the `rule` ("robots.txt", "X-Robots-Tag", …) and the `value` found there, one printable
    line."""

    rule: str
    value: str

    @classmethod
    def of(cls, rule: str, value: str) -> "Receipt":
        """Make a receipt of what a stranger wrote: unprintable characters become `?`, and it is cut to 200."""
        return cls(rule, "".join(char if char.isprintable() else "?" for char in value[:SHOWN]))


def header_refusal(
    tags: Iterable[str], tdm: Collection[str], names: frozenset[str], obeyed: Collection[str]
) -> Receipt | None:
    """Return what an answer's headers refuse, or None.

    `tags`: the values of X-Robots-Tag, `tdm`: of tdm-reservation; `names`: ours, as `robots.agent_names` has them;
    `obeyed`: of OPT_OUTS.
    """
    for value in tags:
        if any(directive in obeyed for directive in _for_us(value, names)):
            return Receipt.of("X-Robots-Tag", value)
    for value in tdm if "tdmrep" in obeyed else ():
        if "1" in (part.strip() for part in value.split(",")):  # proxies join several headers with commas
            return Receipt.of("tdm-reservation", value)
    return None


def statement_refusal(fields: Mapping[str, Sequence[str]], obeyed: Collection[str]) -> Receipt | None:
    """Return what an answer's Content-Usage and Content-Signal headers refuse, or None.

    `fields`: the values of each by its name in lower case; several lines of one field are one list (RFC 9110, 5.3).
    """
    for name, values in fields.items():
        if values and WORDS[name] in obeyed and STATEMENTS[name](", ".join(values)):
            return Receipt.of(f"{FIELDS[name]} header", ", ".join(values))
    return None


def robots_opt_out(rules: RobotsRules, path: str, obeyed: Collection[str]) -> Receipt | None:
    """Return what a robots.txt says against training on a path (from `robots.path_of`), or None."""
    found = rules.opt_out(path, obeyed)
    return Receipt.of(f"robots.txt {found[0]}", found[1]) if found else None


def _for_us(value: str, names: frozenset[str]) -> list[str]:
    """Return the directives of one X-Robots-Tag header that are meant for us.

    `agent: a, b` binds a and b, up to the next agent: proxies join several headers with commas.
    """
    mine, found = True, list[str]()
    for part in re.split("[,;]", value.lower()):
        left, colon, right = part.partition(":")
        left = left.strip()
        if colon and left not in VALUED and AGENT.fullmatch(left):
            mine, part = left == "*" or left in names, right
        if mine:
            words = part.split()
            found += words if KNOWN.issuperset(words) else [part.strip()]
    return found


@dataclass(frozen=True)
class TdmRules:
    """The rules of one `/.well-known/tdmrep.json`: (pattern of paths, whether rights are reserved), in the file's
    order."""

    rules: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def of(cls, text: bytes) -> "TdmRules":
        """Read the file; whatever is not as the TDM Reservation Protocol has it is passed over."""
        try:
            entries = json.loads(text_of(text))
        except (ValueError, RecursionError):
            return cls()
        entries = entries if isinstance(entries, list) else [entries]
        rules = [entry for entry in entries if _is_rule(entry)][:MAX_TDM_RULES]
        return cls(
            tuple((_pattern(rule.get("location", "/")), str(rule["tdm-reservation"]).strip() == "1") for rule in rules)
        )

    @property
    def size(self) -> int:
        """Return about how many bytes the rules take."""
        return sum(len(pattern) + 100 for pattern, _ in self.rules)

    def refusal(self, path: str) -> str | None:
        """Return the rule that reserves a path, or None: the longest pattern that matches counts, a reservation where
        two are equal."""
        hits = [(len(pattern), reserved, pattern) for pattern, reserved in self.rules if matches(pattern, path)]
        if not hits or not max(hits)[1]:
            return None
        return f"location: {max(hits)[2]}, tdm-reservation: 1"


def _is_rule(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("location", "/"), str) and "tdm-reservation" in entry


def _pattern(location: str) -> str:
    """Return a location as a pattern of paths; some write whole URLs."""
    if "://" in location:
        try:
            location = urlsplit(location).path
        except ValueError:
            location = "/"
    return pattern_of(location if location.startswith(("/", "*")) else f"/{location}")
