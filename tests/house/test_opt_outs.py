"""docs/opt-outs.md: every word of fetch.opt_outs stands in its table, and every test that it names is there."""

import re

from filters.fetch.optout import OPT_OUTS
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "opt-outs.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]


def test_every_word_stands_in_the_table_and_nothing_else() -> None:
    named = {word for row in ROWS[1:] for word in re.findall(r"`([^`]+)`", row[1])}
    assert named == {*OPT_OUTS, "fetch.robots", "fetch.robots_4xx"}


def test_every_signal_names_a_test_that_is_there() -> None:
    assert len(ROWS[0]) == 7
    for row in ROWS[1:]:
        assert len(row) == 7, row
        module, _, name = row[6].strip("`").partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / module).read_text(), re.MULTILINE), row[6]
