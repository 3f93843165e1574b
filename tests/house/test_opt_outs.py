"""docs/opt-outs.md: every word of fetch.opt_outs stands in its table, and every test that it names is there."""

import re

from filters.fetch.optout import OPT_OUTS
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "opt-outs.md").read_text()


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table that begins with a heading, the heading first."""
    block = PAGE[PAGE.index(f"| {heading} |") :].partition("\n\n")[0]
    lines = [line for line in block.splitlines() if not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


ROWS = table("signal | word of `fetch.opt_outs`")


def test_every_word_stands_in_the_table_and_nothing_else() -> None:
    named = {word for row in ROWS[1:] for word in re.findall(r"`([^`]+)`", row[1])}
    assert named == {*OPT_OUTS, "fetch.robots", "fetch.robots_4xx"}


def test_every_signal_names_a_test_that_is_there() -> None:
    assert len(ROWS[0]) == 7
    for row in ROWS[1:]:
        assert len(row) == 7, row
        module, _, name = row[6].strip("`").partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / module).read_text(), re.MULTILINE), row[6]


def test_what_is_not_read_is_named_with_its_place_and_why() -> None:
    rows = table("signal | where | why not")
    assert {row[0].strip("`").split("`")[0] for row in rows[1:]} >= {"ai.txt", "RSL 1.0", "DisallowAITraining:"}
    assert all(len(row) == 3 and all(row) for row in rows)
