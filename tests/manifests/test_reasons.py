"""Every list of reasons follows from one table; a name that is neither a reason nor a rule is an error."""

import pytest

from manifests.reasons import (
    GROUPS,
    IMAGE,
    OF_FETCH,
    REASONS,
    RESERVED,
    TRANSIENT,
    WITHOUT_ROW,
    UnknownReason,
    by_group,
    check_known,
    group_of,
    is_among,
    is_known,
    is_status,
    of_status,
)


def test_lists_that_follow_from_the_table():
    assert IMAGE == ("not_an_image", "too_many_pixels", "animated", "truncated", "corrupt")
    assert WITHOUT_ROW == ("broken_row_group", "broken_line", "broken_tar", "removed")
    assert (
        *("dns", "connection", "tls", "timeout", "host_down", "bad_response", "incomplete_body"),
        *("http_408", "http_425", "http_429", "http_5xx"),
    ) == TRANSIENT
    assert OF_FETCH[:2] == ("bad_url", "broken_tar")
    assert OF_FETCH[-1] == "worker_died"
    assert "missing_value" not in OF_FETCH
    assert {"fetch", "kept", "dropped", "dns", "removed"} < RESERVED
    assert {reason.group for reason in REASONS.values()} == {"input", "fetch", "image", "set", "caption"}
    assert all(name == reason.name for name, reason in REASONS.items())


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("http_404", True),
        ("http_5xx", True),
        ("http_999", True),
        ("http_099", False),
        ("http_50x", False),
        ("http_4040", False),
        ("http_", False),
        ("https_404", False),
        ("dns", False),
    ],
)
def test_a_status_is_known_by_its_form(name, answer):
    assert is_status(name) is answer


@pytest.mark.parametrize(
    ("reason", "chosen", "answer"),
    [
        ("dns", {"dns", "tls"}, True),
        ("timeout", {"dns"}, False),
        ("http_503", {"http_5xx"}, True),
        ("http_503", {"http_503"}, True),
        ("http_503", {"http_4xx", "http_500"}, False),
        ("http_429", TRANSIENT, True),
        ("http_404", TRANSIENT, False),
        (None, {"dns"}, False),
        ("dns", (), False),
    ],
)
def test_a_hundred_stands_for_its_statuses(reason, chosen, answer):
    assert is_among(reason, chosen) is answer


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("bad_url", "input"),
        ("http_404", "fetch"),
        ("robots", "fetch"),
        ("corrupt", "image"),
        ("min_side", "rules"),
        ("near_duplicate", "set"),
    ],
)
def test_groups(name, group):
    assert group_of(name) == group


def test_rows_are_added_up_by_group_in_the_order_of_the_chain():
    counts = by_group({"removed": 1, "min_side": 10, "http_404": 3, "dns": 4, "max_ratio": 20})
    assert list(counts.items()) == [("input", 0), ("fetch", 7), ("image", 0), ("rules", 30), ("set", 1)]
    assert GROUPS == ("input", "fetch", "image", "rules", "set")


def test_a_name_that_is_neither_a_reason_nor_a_rule():
    check_known(["dns", "http_404", "min_side"], ["min_side"])
    check_known([], [])
    with pytest.raises(UnknownReason) as raised:
        check_known(["zeal", "dns", "min_side", "http_40"], ["max_side"])
    assert str(raised.value) == ("rows dropped for http_40, min_side, zeal: no reason of docs/reasons.md and no rule")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        *((0, "bad_response"), (1, "bad_response"), (99, "bad_response"), (1000, "bad_response")),
        *((100, "http_100"), (404, "http_404"), (599, "http_599"), (600, "http_600"), (999, "http_999")),
    ],
)
def test_the_reason_of_a_status(status, reason):
    assert of_status(status) == reason


def test_no_number_that_a_server_sends_becomes_an_unknown_reason():
    assert all(is_known(of_status(status)) for status in range(-1000, 12_000))
    assert not any(is_known(name) for name in ("http_0", "http_99", "http_099", "min_side"))
