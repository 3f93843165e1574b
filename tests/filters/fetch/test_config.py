"""The recipe's [fetch] table: what it takes, in which spellings, and what it says of wrong settings."""

import pytest
from pydantic import ValidationError

from filters.fetch.config import FetchConfig, require_contact, split_host_port


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"connect_to": ["a:80:127.0.0.1"]}, "HOST:PORT:ADDR:PORT"),
        ({"connect_to": {"a": "127.0.0.1:99999"}}, "99999"),
        ({"connect_to": {"a:b:c": "127.0.0.1:1"}}, "a:b:c"),
        ({"allow_addresses": ["localhost"]}, "wanted a network"),
        ({"user_agent": "two\r\nlines"}, "printable ASCII"),
        ({"deadline": 3}, "Extra inputs"),
        ({"retries": 11}, "less than or equal to 10"),
        ({"opt_outs": ["noai", "nothing"]}, "wanted some of noai, noimageai"),
        ({"deadline_s": 0}, "greater than 0"),
    ],
)
def test_wrong_settings_say_what_was_wanted(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        FetchConfig.model_validate(wrong)


@pytest.mark.parametrize(
    "agent",
    ["my-bot/1.0 (me@my.site)", "x (+https://my.site/bot)", "a.b+c@my.co.uk", "bot http://localhost.localdomain/"],
)
def test_user_agents_with_a_contact(agent: str) -> None:
    require_contact(FetchConfig(user_agent=agent))


@pytest.mark.parametrize("agent", ["tessera-t2i/0.1", "me at my site", "@my.site", "https://", "Mozilla/5.0"])
def test_user_agents_without(agent: str) -> None:
    with pytest.raises(ValueError, match=r"fetch.user_agent: got .* wanted a name and a contact"):
        require_contact(FetchConfig(user_agent=agent))


def test_connect_to_takes_curls_form() -> None:
    """HOST:PORT:ADDR:PORT, any of them empty, IPv6 in brackets; the table that it becomes reads back as itself."""
    config = FetchConfig(
        connect_to=["a.example:80:127.0.0.1:8080", "a.example::127.0.0.1:1", ":443:[::1]:8443", "::b.example:"]
    )
    assert config.connect_to == {
        "a.example:80": "127.0.0.1:8080",
        "a.example:": "127.0.0.1:1",
        ":443": "[::1]:8443",
        ":": "b.example:",
    }
    assert FetchConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A.Example", ("a.example", None)),
        ("a.example:80", ("a.example", 80)),
        (":443", ("", 443)),
        (":", ("", None)),
        ("", ("", None)),
        (" [2001:DB8::1]:65535 ", ("2001:db8::1", 65535)),
        ("[::1]", ("::1", None)),
    ],
)
def test_a_host_and_a_port_are_told_apart(text: str, expected: tuple[str, int | None]) -> None:
    assert split_host_port(text) == expected


@pytest.mark.parametrize("text", ["a:0", "a:65536", "a:80:90", "::1", "a:port", "[::1"])
def test_what_is_no_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match=r"connect_to: got .* wanted \{ "):
        split_host_port(text)


def test_refusals_have_one_order_whatever_the_recipe_s() -> None:
    """So that the digest of two recipes that mean the same is one."""
    one, two = FetchConfig(opt_outs=["tdmrep", "noai"]), FetchConfig(opt_outs=["noai", "tdmrep", "noai"])
    assert one.opt_outs == two.opt_outs
    assert sorted(one.opt_outs) == ["noai", "tdmrep"]


@pytest.mark.parametrize(
    ("settings", "asks"),
    [
        ({}, True),
        ({"robots": False}, True),  # tdmrep.json is still asked for
        ({"opt_outs": []}, True),
        ({"robots": False, "opt_outs": ["noai"]}, False),  # a word of a header costs no request
    ],
)
def test_sites_are_asked_first_where_their_files_count(settings: dict[str, object], asks: bool) -> None:
    assert FetchConfig.model_validate(settings).asks_first is asks


def test_a_host_gets_a_url_in_a_thousand_seconds_at_least():
    assert FetchConfig(host_rate=0.001).host_rate == 0.001
    with pytest.raises(ValueError, match=r"host_rate\n.*greater than or equal to 0\.001"):
        FetchConfig(host_rate=1e-300)


def test_parts_of_a_sites_budget() -> None:
    config = FetchConfig(host_rate=9, host_connections=8)
    assert config.part(1) is config
    assert [(config.part(n).host_rate, config.part(n).host_connections) for n in (2, 3, 9)] == [
        (4.5, 4),
        (3, 2),
        (1, 1),
    ]
