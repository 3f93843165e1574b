"""Statements of preferences: the AIPREF drafts' own examples, Content-Signal as it is written, and 10,000 plain
robots.txt in which nothing may be found."""

import random

import pytest

from filters.fetch.optout import OPT_OUTS, Receipt, robots_opt_out
from filters.fetch.preferences import FIELDS, STATEMENTS, WORDS, signal_refuses, split_path, usage_refuses
from filters.fetch.robots import RobotsRules, agent_names

NAMES = agent_names("tessera-t2i/0.1 (+https://my.site; me@my.site)")


def opt_out(text: str, path: str, *obeyed: str) -> Receipt | None:
    return robots_opt_out(RobotsRules.of(text.encode(), NAMES), path, obeyed or OPT_OUTS)


@pytest.mark.parametrize(
    ("statement", "refuses"),
    [
        ("train-ai=n", True),  # attach-05, 1.2, header and rule
        ("train-ai=y, search=n", False),  # vocab-08, 6
        ('train-ai=y, train-ai, search=n, search="n"', False),  # vocab-08, 6.5.1: all unknown
        ("train-ai;allow=n, train-ai=y", False),  # vocab-08, 6.5.2
        ('train-ai;has;parameters="?";', False),  # vocab-08, 6.5.2: no dictionary, so nothing is said
        ('train-ai;has;parameters="?"', False),
        ("Train-AI=n", False),  # 6.5.1: keys in upper case fail to parse
        ("train-ai=n;until=2030", True),  # parameters are ignored
        ("train-ai=no", False),  # another token: unknown
        ("train-ai=?0", False),
        ('train-ai="n"', False),
        ("train-ai=(n)", False),
        ("train-ai=y, train-ai=n", True),
        ("train-ai=n, train-ai=y", False),
        ("search=n, ai-use=n", False),
        ("train-ai=n, other=(1 2), more=:aGk=:", True),
        ("train-ai=n,", False),  # a comma at the end is no dictionary
        ("train-ai=n; search=y", True),  # a parameter of that name
        ("", False),
        ("train-ai", False),
        ("train-ai=n" + " " * 70_000, False),
        (", ".join(f"k{n}=y" for n in range(1100)) + ", train-ai=n", True),  # RFC 9651, 3.2: 1,024 members at least
        ("caf\udce9=n", False),
    ],
)
def test_content_usage_as_the_drafts_have_it(statement: str, refuses: bool) -> None:
    assert usage_refuses(statement) is refuses


def test_labels_of_earlier_drafts_and_the_wider_ones_give_way() -> None:
    assert [usage_refuses(f"{label}=n") for label in ("train-genai", "genai", "ai", "bots", "tdm", "all")] == [True] * 6
    assert usage_refuses("train-ai=y, train-genai=n")
    assert not usage_refuses("bots=n, train-ai=y")
    assert not usage_refuses("ai-output=n")


@pytest.mark.parametrize(
    ("statement", "refuses"),
    [
        ("search=yes,ai-train=no,use=reference", True),  # a CDN's managed robots.txt
        ("search=yes, ai-train=no", True),
        ("ai-train=no", True),
        ("AI-Train = NO ; search=yes", True),
        ('ai-train="no"', True),
        ('"ai-train"="no"', True),
        ("ai-train: no", True),
        ("search=yes ai-train=no", True),
        ("ai-train=yes, ai-train=no", True),
        ("ai-train=yes", False),
        ("search=no, ai-input=no", False),
        ("no-ai-train=no", False),
        ("ai-train=not-said", False),
        ("ai-train=none", False),
        ("ai-train", False),
        ("", False),
    ],
)
def test_content_signal_as_people_write_it(statement: str, refuses: bool) -> None:
    assert signal_refuses(statement) is refuses


def test_every_field_has_a_word_a_spelling_and_a_reader() -> None:
    assert set(FIELDS) == set(STATEMENTS) == set(WORDS)
    assert set(WORDS.values()) <= set(OPT_OUTS)
    assert [split_path(value) for value in ("/a b=n", "/a\tb=n", "b=n", "/a", "")] == [
        ("/a", "b=n"),
        ("/a", "b=n"),
        ("/", "b=n"),
        ("/a", ""),
        ("/", ""),
    ]


FIGURE_2 = """User-Agent: *
Allow: /
Disallow: /never/
Content-Usage: train-ai=n
Content-Usage: /ai-ok/ train-ai=y

User-Agent: ExampleBot
Allow: /
Content-Usage: train-ai=y
"""


def test_the_robots_txt_of_the_attachment_draft() -> None:
    """draft-ietf-aipref-attach-05, figure 2 and table 1; -04 writes a path in every rule."""
    for text in (FIGURE_2, FIGURE_2.replace("Content-Usage: train", "Content-Usage: / train")):
        rules = RobotsRules.of(text.encode(), NAMES)
        assert [rules.refusal(path) for path in ("/test", "/never/test", "/ai-ok/test")] == [
            None,
            "Disallow: /never/",
            None,
        ]
        found = opt_out(text, "/test")
        assert found is not None
        assert found.rule == "robots.txt Content-Usage"
        assert found.value in ("Content-Usage: train-ai=n", "Content-Usage: / train-ai=n")
        assert opt_out(text, "/ai-ok/test") is None
        as_example = RobotsRules.of(text.encode(), frozenset({"examplebot"}))
        assert robots_opt_out(as_example, "/test", OPT_OUTS) is None


def test_a_managed_robots_txt_refuses_all_of_the_site() -> None:
    text = (
        "# BEGIN managed content\nUser-Agent: *\nContent-signal: search=yes,ai-train=no\nAllow: /\n\n"
        "User-agent: CCBot\nDisallow: /\n\nUser-agent: GPTBot\nDisallow: /\n# END managed content\n\n"
        "User-agent: *\nDisallow: /langtest\n"
    )
    rules = RobotsRules.of(text.encode(), NAMES)
    assert [rules.refusal("/a.jpg"), rules.refusal("/langtest")] == [None, "Disallow: /langtest"]
    assert robots_opt_out(rules, "/a.jpg", OPT_OUTS) == Receipt(
        "robots.txt Content-Signal", "Content-Signal: search=yes,ai-train=no"
    )


@pytest.mark.parametrize(
    ("text", "path", "refused"),
    [
        ("User-agent: *\nContent-Signal: /blog/ ai-train=no", "/blog/a.jpg", True),
        ("User-agent: *\nContent-Signal: /blog/ ai-train=no", "/a.jpg", False),
        ("User-agent: *\nContent-Usage: /*.jpg$ train-ai=n", "/x/a.jpg", True),
        ("User-agent: *\nContent-Usage: /a$b train-ai=n", "/a%24b/c", True),
        ("User-agent: *\nContent-Usage: /caf%C3%A9 train-ai=n", "/caf%C3%A9/a", True),
        (
            "User-agent: *\nContent-Usage: /a train-ai=y\nContent-Usage: /a train-ai=n",
            "/a",
            True,
        ),  # equal: the stricter
        ("User-agent: *\nContent-Usage: /a train-ai=y\nContent-Signal: ai-train=no", "/a", True),  # fields are apart
        ("User-agent: *\nContent-Usage: train-ai=n\nContent-Usage: /a search=n", "/a", False),  # the longest alone
        ("User-agent: *\nContent-Signal: ai-train=no\nContent-Signal: /a search=yes", "/a", True),
        ("User-agent: *\nContent-Signal: ai-train=no\nContent-Signal: /a ai-train=yes", "/a", False),
        ("User-agent: otherbot\nContent-Signal: ai-train=no", "/a", False),
        ("User-agent: tessera\nAllow: /\nUser-agent: *\nContent-Signal: ai-train=no", "/a", False),
        ("User-agent: otherbot\nUser-agent: tessera\nContent-Signal: ai-train=no", "/a", True),
        ("User-agent: *\nContent-Signal: ai-train=no\nUser-agent: otherbot\nDisallow: /", "/a", True),
        ("User-agent: otherbot\nContent-Signal: ai-train=no\nUser-agent: *\nAllow: /", "/a", False),
        ("Content-Signal: ai-train=no\nUser-agent: tessera\nAllow: /", "/a", True),  # above all groups: everybody
        ("User-agent: *\n# Content-Signal: ai-train=no", "/a", False),
        ("user-agent: *\r\n\tCONTENT-SIGNAL : ai-train=no # ours\r\n", "/a", True),
        ("User-agent: *\nContent-Usage: train-ai=n # not for training", "/a", True),
        ("<html>Content-Signal: ai-train=no</html>", "/a", False),
    ],
)
def test_groups_and_paths_of_statements(text: str, path: str, refused: bool) -> None:
    assert (opt_out(text, path) is not None) is refused


def test_what_is_obeyed_is_the_recipes_choice() -> None:
    text = "User-agent: *\nContent-Signal: ai-train=no\nContent-Usage: train-ai=n"
    assert opt_out(text, "/a", "aipref") == Receipt("robots.txt Content-Usage", "Content-Usage: train-ai=n")
    assert opt_out(text, "/a", "content-signal") == Receipt("robots.txt Content-Signal", "Content-Signal: ai-train=no")
    assert opt_out(text, "/a", "noai") is None


WORDS_OF_PATHS = (
    "admin",
    "wp-admin",
    "train",
    "ai",
    "search",
    "no",
    "private",
    "img",
    "cgi-bin",
    "*",
    "noai",
    "data-n",
)
AGENTS = ("*", "Googlebot", "GPTBot", "CCBot", "bingbot", "tessera", "AhrefsBot", "Mediapartners-Google")
KEYS = ("Disallow", "Allow", "disallow", "Crawl-delay", "Sitemap", "Host", "Noindex", "Clean-param", "Request-rate")
SAID = (
    "# Content-Signal: ai-train=no",
    "# ai-train: training or fine-tuning AI models.",
    "Content-Signal: search=yes, ai-input=no, ai-train=yes",
    "Content-Usage: train-ai=y, search=n",
    "License: https://site.example/license.xml",
    "",
)


def plain_robots(rng: random.Random) -> str:
    """Return a robots.txt as sites have them, in which nobody refuses training."""
    lines = []
    for _ in range(rng.randrange(1, 5)):
        lines += [f"User-agent: {rng.choice(AGENTS)}" for _ in range(rng.randrange(1, 3))]
        for _ in range(rng.randrange(8)):
            path = "/" + "/".join(rng.choices(WORDS_OF_PATHS, k=rng.randrange(4)))
            key = rng.choice(KEYS)
            lines.append(f"{key}: {rng.randrange(30) if key == 'Crawl-delay' else path}")
        lines.append(rng.choice(SAID))
    return rng.choice(("\n", "\r\n")).join(lines)


PLANTED = (
    "Content-Signal: ai-train=no",
    "Content-signal: search=yes, ai-train=no",
    "content-signal: search=yes,ai-train=no,use=reference",
    "Content-Signal: / ai-train=no",
    "Content-Usage: train-ai=n",
    "Content-Usage: / train-ai=n, search=y",
    "CONTENT-USAGE:train-ai=n;until=2030",
)


def test_none_is_invented_on_10000_plain_robots_files_and_every_planted_one_is_found() -> None:
    rng = random.Random(20261126)
    paths = ("/", "/img/train/a.jpg", "/ai/no/b.png?train-ai=n")
    invented = missed = 0
    for number in range(10_000):
        text = plain_robots(rng)
        rules = RobotsRules.of(text.encode(), NAMES)
        invented += any(robots_opt_out(rules, path, OPT_OUTS) for path in paths)
        if number % 10 == 0:
            end = "\r\n" if "\r\n" in text else "\n"
            planted = PLANTED[number // 10 % len(PLANTED)]
            agents = f"User-agent: *{end}User-agent: tessera{end}"
            where = f"{text}{end}{agents}{planted}" if number % 20 else f"{agents}{planted}{end}{text}"
            found = RobotsRules.of(where.encode(), NAMES)
            missed += not all(robots_opt_out(found, path, OPT_OUTS) for path in paths)
    assert (invented, missed) == (0, 0)


def test_a_file_of_statements_costs_little() -> None:
    import time

    many = "User-agent: *\n" + "".join(f"Content-Usage: /{n} train-ai=n, a{n}=1\n" for n in range(14_000))
    slow = "User-agent: *\nContent-Signal: " + "ai-train " * 50_000 + "\nContent-Usage: " + "a=n," * 100_000
    started = time.process_time()
    assert opt_out(many, "/77/x") is not None
    assert opt_out(slow, "/a") is None
    assert time.process_time() - started < 10
