"""Read whether a statement of preferences refuses training: AIPREF's Content-Usage, and Content-Signal.

AIPREF: draft-ietf-aipref-attach-05 says where a statement stands, draft-ietf-aipref-vocab-08 what it means.
Content-Signal: contentsignals.org, as managed robots.txt files of CDNs have it.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

MAX_LENGTH = 65_536
"""Characters of a statement that are read; what is longer says nothing."""
CATEGORIES = (("train-ai", "train-genai", "genai"), ("ai",), ("bots", "tdm", "all"))
"""AIPREF's labels that cover training of a generative model: a line that says y or n decides, else the next one.

`train-ai` is the vocabulary's; the others are of its earlier drafts, the wider ones below the narrower.
"""
SIGNAL = "ai-train"
NO = {"no", "n"}
PAIRS = re.compile(r"(?<![\w-])([a-z-]+)[\"']?\s*[=:]\s*[\"']?([a-z]+)(?![\w-])", re.IGNORECASE)


@lru_cache(4_096)
def usage_refuses(statement: str) -> bool:
    """Tell whether a Content-Usage statement disallows training.

    It is a dictionary of structured fields (RFC 9651): of a key that stands twice the last value counts, parameters
    and unknown labels say nothing, nor does what is no dictionary.
    """
    if len(statement) > MAX_LENGTH or "=" not in statement:
        return False
    import http_sf

    try:
        said = http_sf.parse(statement.encode("utf-8", "surrogateescape"), tltype="dictionary")
    except (http_sf.StructuredFieldError, ValueError, RecursionError):
        return False
    assert isinstance(said, dict)
    for labels in CATEGORIES:
        found = [_value(said, label) for label in labels]
        values = [str(value) for value in found if isinstance(value, http_sf.Token)]
        if "n" in values:
            return True
        if "y" in values:
            return False
    return False


def _value(said: Mapping[str, object], label: str) -> object:
    """Return the bare value of a label, None where it is absent or an inner list."""
    member = said.get(label)
    return member[0] if isinstance(member, tuple) else None


@lru_cache(4_096)
def signal_refuses(statement: str) -> bool:
    """Tell whether a Content-Signal statement says `ai-train=no`: once is enough, whatever else it says.

    Read leniently, since people write it by hand: case, blanks, quotes and semicolons for commas do not matter.
    """
    pairs = PAIRS.findall(statement[:MAX_LENGTH])
    return any(key.lower() == SIGNAL and value.lower() in NO for key, value in pairs)


def signal_speaks(statement: str) -> bool:
    """Tell whether a Content-Signal statement says anything of training."""
    return any(key.lower() == SIGNAL for key, _ in PAIRS.findall(statement[:MAX_LENGTH]))


STATEMENTS = {"content-signal": signal_refuses, "content-usage": usage_refuses}
"""Field's name, in robots.txt and in headers -> what tells whether a statement refuses training."""
WORDS = {"content-signal": "content-signal", "content-usage": "aipref"}
"""Field's name -> the word of `fetch.opt_outs` under which it is obeyed."""
FIELDS = {"content-signal": "Content-Signal", "content-usage": "Content-Usage"}
"""Field's name as receipts spell it."""


def split_path(value: str) -> tuple[str, str]:
    """Return (path, statement) of a rule's value in robots.txt; the path is `/` where it names none."""
    if not value.startswith("/"):
        return "/", value
    path, *rest = value.split(None, 1)
    return path, rest[0] if rest else ""
