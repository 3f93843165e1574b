"""Two funnels side by side: differences, bounds that say so, and what would have to be run to know."""

from pipeline.analysis.whatif import Answer, Funnel
from pipeline.analysis.whatif_table import lines
from pipeline.recipes.load import parse_recipe
from tests.support.judged_rows import RECIPE

NOW = Funnel(200, 50, {"size": 100, "similarity": 50}, {"broad": 50, "fine": 10})


def told(answer: Answer) -> list[str]:
    return list(lines(answer, parse_recipe({**RECIPE, "output": {"root": "runs/x"}})))


def row(answer: Answer, name: str) -> list[str]:
    (line,) = [line for line in told(answer) if line.split()[:1] == [name]]
    return line.split()[1:]


def test_nothing_changed():
    text = told(Answer(NOW, NOW, []))
    assert text[:2] == ["whatif: runs/x", "  the rules are those of the run"]
    assert row(Answer(NOW, NOW, []), "kept") == ["50", "25.00%", "50", "25.00%"]  # 50 of 200, and no difference
    assert text[-1] == "  These are the figures that a run with these rules would give."


def test_a_stricter_rule():
    then = Funnel(200, 30, {"size": 100, "similarity": 70}, {"broad": 30, "fine": 10})
    answer = Answer(NOW, then, ["filter.rules.similarity.min: 0.3 -> 0.4"])
    assert "  filter.rules.similarity.min: 0.3 -> 0.4" in told(answer)
    assert row(answer, "kept") == ["50", "25.00%", "30", "15.00%", "-20"]
    assert row(answer, "similarity") == ["50", "25.00%", "70", "35.00%", "+20"]
    assert row(answer, "broad") == ["64", "px", "50", "25.00%", "30", "15.00%", "-20"]


def test_rows_that_were_never_fetched_make_bounds():
    then = Funnel(200, 50, {"size": 60, "similarity": 50}, {"broad": 50, "fine": 10})
    answer = Answer(NOW, then, [], {"size": 40}, {"kept": 90, "broad": 90, "fine": 50})
    assert row(answer, "kept") == ["50", "25.00%", ">=", "50", "25.00%"]
    assert row(answer, "never") == ["fetched", "0", "0.00%", "40", "20.00%", "+40"]
    text = "\n".join(told(answer))
    assert "40 rows might come in that were never fetched (40 dropped now as size)" in text
    assert "kept: from 50 (none of them survives) to 90 (all of them pass what is unknown)" in text
    assert text.endswith("To know, run it: pipeline run --stage filter.")


def test_rows_whose_reason_may_be_an_earlier_rule_are_marked():
    answer = Answer(NOW, NOW, [], moved={"size": 7})
    assert row(answer, "size")[2] == "~100"
    assert any(line.startswith("  ~ 7 of size: dropped for certain") for line in told(answer))


def test_no_rows_have_no_shares():
    nothing = Funnel(0, 0, {}, {})
    assert row(Answer(nothing, nothing, []), "kept") == ["0", "0"]
