"""Know every reason for which a row is dropped; whatever else a ledger names is a rule of the recipe.

Every list of reasons is derived from REASONS, and docs/reasons.md is tested against it.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

GROUPS = ("input", "fetch", "image", "rules", "set")
"""Where in the chain a row meets its reason, in that order. Reasons of group `caption` come after it: they take a
caption, and the row stays kept."""
HTTP = re.compile(r"http_[1-9](\d\d|xx)")
"""The server's status, 100 to 999: `http_404`; where reasons are chosen, `http_5xx` stands for any status of that
hundred."""


class UnknownReason(LookupError):
    """A row was dropped for something that is neither a reason nor a rule: always a defect of this project."""


@dataclass(frozen=True)
class Reason:
    """One reason.

    `group`: one of GROUPS, or `caption`. `may_pass`: asked again later, the fault may be gone (`--retry-failed
    transient`).
    `leaves_row`: false where nothing of the row can be read, so that its uid is null. `of_fetch`: true where the ledger
    of fetch can name it, though its group is another.
    """

    name: str
    group: str
    may_pass: bool = False
    leaves_row: bool = True
    of_fetch: bool = False


REASONS: dict[str, Reason] = {
    reason.name: reason
    for reason in (
        Reason("bad_url", "input", of_fetch=True),
        Reason("missing_value", "input"),
        Reason("broken_row_group", "input", leaves_row=False),
        Reason("broken_line", "input", leaves_row=False),
        Reason("broken_tar", "input", leaves_row=False, of_fetch=True),
        Reason("not_in_table", "input"),
        Reason("blocked_scheme", "fetch"),
        Reason("blocked_address", "fetch"),
        Reason("dns", "fetch", may_pass=True),
        Reason("connection", "fetch", may_pass=True),
        Reason("tls", "fetch", may_pass=True),
        Reason("timeout", "fetch", may_pass=True),
        Reason("host_down", "fetch", may_pass=True),
        Reason("bad_response", "fetch", may_pass=True),
        Reason("too_many_redirects", "fetch"),
        Reason("too_large", "fetch"),
        Reason("incomplete_body", "fetch", may_pass=True),
        Reason("empty_body", "fetch"),
        Reason("robots", "fetch"),
        Reason("opted_out", "fetch"),
        Reason("missing_file", "fetch"),
        Reason("blocked_path", "fetch"),
        Reason("not_an_image", "image"),
        Reason("too_many_pixels", "image"),
        Reason("animated", "image"),
        Reason("truncated", "image"),
        Reason("corrupt", "image"),
        Reason("exact_duplicate", "set"),
        Reason("near_duplicate", "set"),
        Reason("placeholder", "set"),
        Reason("in_eval_set", "set"),
        Reason("removed", "set", leaves_row=False),
        Reason("worker_died", "set", of_fetch=True),
        Reason("captioner_failed", "caption"),
        Reason("endpoint_busy", "caption", may_pass=True),
        Reason("endpoint_timeout", "caption", may_pass=True),
        Reason("endpoint_connection", "caption", may_pass=True),
        Reason("endpoint_bad_answer", "caption", may_pass=True),
        Reason("endpoint_refused", "caption"),
        *(
            Reason(f"caption_{flag}", "caption")
            for flag in (
                "empty",
                "too_short",
                "refusal",
                "repeated",
                "truncated",
                "non_printable",
                "wrong_language",
                "prompt_leak",
                "boilerplate",
                "copies_alt",
                "over_tokens",
                "lost_names",
                "invented_names",
                "lost_numbers",
                "invented_numbers",
                "below_alt",
                "repeated_in_corpus",
            )
        ),
    )
}
"""Name -> reason, in the order of docs/reasons.md. `http_NNN` is known by its form: any status, group fetch."""
PASSING_STATUS = ("http_408", "http_425", "http_429", "http_5xx")
"""Statuses that a server may take back."""
TRANSIENT = (
    *(name for name, reason in REASONS.items() if reason.may_pass and reason.group != "caption"),
    *PASSING_STATUS,
)
"""Faults of fetches that may have passed when they are asked again."""
ASKED_AGAIN = (
    "worker_died",
    *(name for name, reason in REASONS.items() if reason.group == "caption" and reason.may_pass),
)
"""Reasons with which no row of a step that carries its rows is done for good: the next run asks again, for these
alone."""
IMAGE = tuple(name for name, reason in REASONS.items() if reason.group == "image")
"""What is wrong with a picture that came."""
OF_FETCH = tuple(name for name, reason in REASONS.items() if reason.group in ("fetch", "image") or reason.of_fetch)
"""What the ledger of fetch can name, beside a status."""
WITHOUT_ROW = tuple(name for name, reason in REASONS.items() if not reason.leaves_row)
"""Reasons that leave nothing of a row: its uid is null."""
RESERVED = frozenset((*REASONS, "fetch", "kept", "dropped"))
"""Names that no rule may have. `http_NNN` is shut out by its form."""


def of_status(status: int) -> str:
    """Return the reason of an answer that is dropped for its status.

    RFC 9110 knows 100 to 599, and large sites send others up to 999: each has its own reason. What is below 100 or
    above 999 is no status.
    """
    return f"http_{status}" if 100 <= status <= 999 else "bad_response"


def is_known(name: str) -> bool:
    """Tell whether a name is a reason or a server's status."""
    return name in REASONS or is_status(name)


def is_status(name: str) -> bool:
    """Tell whether a name is a server's status, `http_404`, or a hundred of them, `http_5xx`."""
    return HTTP.fullmatch(name) is not None


def is_among(reason: str | None, wanted: Collection[str]) -> bool:
    """Tell whether a reason is one of these; `http_5xx` stands for http_500 to http_599."""
    return reason is not None and (reason in wanted or (is_status(reason) and f"{reason[:6]}xx" in wanted))


def group_of(name: str) -> str:
    """Return the group of a reason; the name of a rule is of `rules`."""
    if is_status(name):
        return "fetch"
    return REASONS[name].group if name in REASONS else "rules"


def by_group(dropped: Mapping[str, int]) -> dict[str, int]:
    """Return group -> rows dropped, in the order in which a row meets them."""
    counts: Counter[str] = Counter()
    for name, rows in dropped.items():
        counts[group_of(name)] += rows
    return {group: counts[group] for group in GROUPS}


def check_known(names: Collection[str], rules: Collection[str]) -> None:
    """Raise UnknownReason for a name that is no reason, no status, and no rule of the recipe."""
    unknown = sorted(name for name in names if not is_known(name) and name not in rules)
    if unknown:
        raise UnknownReason(f"rows dropped for {', '.join(unknown)}: no reason of docs/reasons.md and no rule")
