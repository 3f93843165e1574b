"""Read robots.txt as RFC 9309 has it, and say which line of it forbids a path.

Own code because the line that forbids is kept as a receipt, which no library tells; Protego is the reference in the
tests. Patterns come from strangers, so matching is by plain searches, never by a regular expression.
"""

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from filters.fetch.preferences import FIELDS, STATEMENTS, WORDS, signal_speaks, split_path
from filters.fetch.site_text import text_of
from filters.fetch.url import MEANT

MAX_BYTES = 500 * 1024
"""Bytes of a robots.txt that are read: as many as RFC 9309 asks for at least. What follows is passed over."""
OURS = ("tessera", "tessera-t2i")
"""What a site may call us, whatever product name the recipe's user agent begins with."""
PRODUCT = re.compile(r"(?:^|[\s;(])([A-Za-z][A-Za-z0-9_-]*)(?=/\d)")
TOKEN = re.compile(r"\*|[A-Za-z0-9_-]+")
QUOTED = re.compile(r"%([0-9A-Fa-f]{2})")
SAFE = frozenset(range(0x21, 0x7F)) - frozenset(b'"<>\\^`{|}')
"""Octets that stand in a path as they are; browsers quote some of the others, sites write them either way."""
ODD = re.compile(r"[^!#-;=?-\[\]_a-z~]")
"""Whatever else is in a path; `SAFE` as characters."""
PARAMETERS = re.compile(r";[^/]*")
FOREIGN = re.compile(r"[^\x20-\x7e]")
"""What no name of a rule holds: marks that were decoded wrongly, blanks of other scripts."""
AGENT = {"user-agent", "useragent", "user agent"}
RULES = {"allow", "disallow", *STATEMENTS}
"""Lines that end the list of a group's user agents (RFC 9309, 2.2.4: no other line does)."""
MAX_STATEMENTS = 10_000
"""Statements of preferences that are read of one file: each URL is held against all of them."""


def agent_names(user_agent: str) -> frozenset[str]:
    """Return the names, in lower case, under which a site may address the sender of this User-Agent header."""
    leading = TOKEN.match(user_agent)
    found = {name.lower() for name in PRODUCT.findall(user_agent)} - {"mozilla"}
    return frozenset({*OURS, *found, *([leading[0].lower()] if leading and leading[0].lower() != "mozilla" else [])})


def spelled(path: str) -> str:
    """Return a path or pattern with one spelling for each octet: what a URL may hold plain, `MEANT` as it is, the rest
    %XX.

    RFC 9309 (2.2.2) would keep `:` and `%3A` apart; servers do not, so that a rule about one is a rule about the other.
    """

    def plain(match: re.Match[str]) -> str:
        char = chr(int(match[1], 16))
        return char if ord(char) in SAFE and char not in MEANT else f"%{match[1].upper()}"

    if ODD.search(path):
        path = "".join(chr(octet) if octet in SAFE else f"%{octet:02X}" for octet in _octets(path))
    return QUOTED.sub(plain, path) if "%" in path else path


def _octets(text: str) -> bytes:
    """Return the octets of a text that was read with surrogateescape; half a pair, which JSON can name, has three."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def pattern_of(text: str) -> str:
    """Return a pattern of paths in one spelling: a `$` that is not its end is a plain one, `%24`."""
    body = spelled(text.removesuffix("$"))
    return body.replace("$", "%24") + "$" * text.endswith("$")


def path_of(url: str) -> str:
    """Return what rules are matched with: path and query of a canonical URL, spelled as patterns are: `*` and `$` are
    `%2A` and `%24` (RFC 9309, 2.2.3)."""
    parts = urlsplit(url)
    return _plain(f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}")


def readings(url: str) -> tuple[str, ...]:
    """Return the paths under which rules are asked about a canonical URL: `path_of`, and what servers make of it.

    Many decode a path before they look for its file, so that `/a//b`, `/a%2Fb`, `/x%2F..%2Fa/b` and `/a;v=1/b` are
    `/a/b`: a rule about one of them shall not be passed by another.
    """
    found = [path_of(url)]
    path, mark, query = found[0].partition("?")
    if "//" in path or "/." in path or "%" in path or ";" in path:
        found += [_plain(_served(one)) + mark + query for one in (path, PARAMETERS.sub("", path))]
    return tuple(dict.fromkeys(found))


def _plain(path: str) -> str:
    return spelled(path).replace("*", "%2A").replace("$", "%24")


def _served(path: str) -> str:
    """Return a path decoded once, its slashes merged and its dot segments resolved."""
    kept: list[bytes] = []
    first, *parts = unquote_to_bytes(path).replace(b"\\", b"/").split(b"/")
    for part in parts:
        if part == b"..":
            del kept[-1:]
        elif part not in (b"", b"."):
            kept.append(part)
    folder = bool(kept) and parts[-1] in (b"", b".", b"..")
    return quote_from_bytes(b"/".join([first, *kept]) + b"/" * (folder or not kept), safe="!$&'()*+,/:;=@")


def matches(pattern: str, path: str) -> bool:
    """Say whether a pattern, with `*` for anything and a `$` at its end, matches the beginning (with `$`: all) of a
    path.

    Each piece between stars is looked for once, from where the last one ended, so the time is linear in the path for
    each piece.
    """
    whole = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    if not rest:
        return not whole or path == first
    at, last = len(first), rest.pop() if whole else ""
    for piece in rest:
        found = path.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return not whole or (path.endswith(last) and len(path) - len(last) >= at)


@dataclass(frozen=True)
class RobotsRules:
    """The rules of one robots.txt that are meant for us. `delay_s`: its Crawl-delay in seconds, if it names one.

    `statements`: (pattern, field, whether it refuses training, line) of each Content-Signal and Content-Usage.
    """

    plain: dict[str, tuple[bool, str]] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    wild: tuple[tuple[str, bool, str], ...] = ()
    delay_s: float | None = None
    size: int = 0
    statements: tuple[tuple[str, str, bool, str], ...] = ()

    @classmethod
    def of(cls, text: bytes, names: frozenset[str]) -> "RobotsRules":
        """Read a robots.txt: the groups that name us, or else those for everybody. Whatever is no rule is passed
        over."""
        found, named = _groups(text, names)
        mine = found[True] if named else found[False]
        plain: dict[str, tuple[bool, str]] = {}
        wild: dict[str, tuple[bool, str]] = {}
        delay: float | None = None
        statements = [_statement(key, value) for key, value in mine if _speaks(key, value)][:MAX_STATEMENTS]
        for key, value in mine:
            if key == "crawl-delay":
                delay = _seconds(value) if delay is None else delay
            elif key in STATEMENTS:
                continue
            elif value.startswith(("/", "*", "$")):
                pattern, allowed = pattern_of(value), key == "allow"
                place = wild if "*" in pattern or pattern.endswith("$") else plain
                if allowed or pattern not in place:  # the least restrictive of two equal rules counts
                    place[pattern] = (allowed, f"{key.capitalize()}: {value}")
        ordered = tuple((pattern, *rule) for pattern, rule in sorted(wild.items(), key=lambda item: -len(item[0])))
        size = sum(2 * len(pattern) + 200 for pattern in (*plain, *wild))
        size += sum(len(pattern) + len(line) + 200 for pattern, _, _, line in statements)
        lengths = tuple(sorted({len(pattern) for pattern in plain}))
        return cls(plain, lengths, ordered, delay, size, tuple(statements))

    @classmethod
    def forbidding_all(cls, line: str) -> "RobotsRules":
        """Return rules that forbid every path, for a reason that is no line of a file."""
        return cls({"/": (False, line)}, (1,))

    def refusal(self, path: str) -> str | None:
        """Return the line that forbids a path (from `path_of`), or None: the longest match counts, Allow where two are
        equal."""
        best, allowed, line = -1, True, ""
        for length in reversed(self.lengths[: bisect_left(self.lengths, len(path) + 1)]):
            if rule := self.plain.get(path[:length]):
                best, (allowed, line) = length, rule
                break
        for pattern, permits, says in self.wild:
            if len(pattern) < best or (len(pattern) == best and allowed):
                break
            if (len(pattern) > best or permits) and matches(pattern, path):
                best, allowed, line = len(pattern), permits, says
        return None if allowed or path == "/robots.txt" else line

    def opt_out(self, path: str, obeyed: Collection[str]) -> tuple[str, str] | None:
        """Return (field, line) of the statement that refuses training on a path, or None.

        Of each field the rules with the longest match count, and a refusal where several are equal
        (draft-ietf-aipref-attach, 3.1). `obeyed`: words of `fetch.opt_outs`.
        """
        for name, word in WORDS.items():
            mine = [rule for rule in self.statements if rule[1] == name and word in obeyed and matches(rule[0], path)]
            longest = max((len(pattern) for pattern, *_ in mine), default=0)
            for pattern, _, refuses, line in mine:
                if refuses and len(pattern) == longest:
                    return FIELDS[name], line
        return None


def _speaks(key: str, value: str) -> bool:
    """Tell whether a line is a statement: a Content-Signal without a word of training hides no other that has one."""
    return key in STATEMENTS and (key != "content-signal" or signal_speaks(split_path(value)[1]))


def _statement(key: str, value: str) -> tuple[str, str, bool, str]:
    path, statement = split_path(value)
    return pattern_of(path), key, STATEMENTS[key](statement), f"{FIELDS[key]}: {value}"


def _groups(text: bytes, names: frozenset[str]) -> tuple[dict[bool, list[tuple[str, str]]], bool]:
    """Return the rules for us (True) and for everybody (False), and whether any group names us."""
    rules: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    agents: set[str] = set()
    named = in_rules = False
    for key, value in _lines(text):
        if key in AGENT:
            agents = set() if in_rules else agents
            in_rules = False
            token = TOKEN.match(value)
            agents.add(token[0].lower() if token else "")
            named = named or bool(agents & names)
        elif key in RULES or key == "crawl-delay":
            in_rules = in_rules or key in RULES
            everybody = not agents and key in STATEMENTS  # above the first group: no crawler is excepted
            if agents & names or everybody:
                rules[True].append((key, value))
            if "*" in agents or everybody:
                rules[False].append((key, value))
    return rules, named


def _lines(text: bytes) -> Iterator[tuple[str, str]]:
    """Yield (key in lower case, value) of each line that has both. Of a longer text only a part of the last line may
    have come: an Allow that was cut could allow more than it does."""
    lines = text_of(text[:MAX_BYTES]).replace("\r", "\n").split("\n")
    cut = len(lines) if len(text) >= MAX_BYTES else 0
    for number, line in enumerate(lines, 1):
        key, colon, value = line.partition("#")[0].partition(":")
        name = FOREIGN.sub("", key).strip().lower() if colon and len(key) < 40 else ""
        if name and not (name == "allow" and number == cut):
            yield name, value.strip()


def _seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if 0 <= seconds < 1e9 else None
