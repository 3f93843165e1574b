"""The tables of the recipe's page come from the models; the page that stands in docs/ is current."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import Field

from pipeline.analysis.recipe_page import PAGE, attribute_docs, render, tables, type_words


def test_the_page_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert render(text) == text, "docs/recipe.md is not what the models say: `make docs` writes it anew"


def test_every_table_stands_in_the_page_once() -> None:
    marks = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("<!-- keys: ")]
    named = [name for mark in marks for name in mark.removeprefix("<!-- keys: ").removesuffix(" -->").split(", ")]
    assert sorted(named) == sorted(tables())


def test_every_key_says_what_it_means() -> None:
    assert [
        f"{table}.{key}"
        for table, model in tables().items()
        for key, field in model.model_fields.items()
        if not field.description
    ] == []


def test_prose_stays_and_what_stands_between_marks_is_written_anew() -> None:
    page = "before\n<!-- keys: output -->\n| old |\n<!-- end -->\nafter\n"
    assert render(page) == (
        "before\n<!-- keys: output -->\n| key | default | type | meaning | changes |\n| --- | --- | --- | --- | --- |\n"
        '| `root` | `"runs/laion-coco"` | text | run folder: a local one, or a URL such as s3://BUCKET/FOLDER | nothing'
        " |\n"
        '| `memory_limit` | `"2GB"` | text | what a query of DuckDB may hold in memory; the rest lies in the run folder'
        " meanwhile | nothing |\n"
        "| `threads` | `0` | whole number, ≥ 0, ≤ 1,024 | threads of a query of DuckDB; 0: one for each core |"
        " nothing |\n"
        "<!-- end -->\nafter\n"
    )


def test_an_unknown_table_is_an_error() -> None:
    with pytest.raises(KeyError, match="outputs"):
        render("<!-- keys: outputs -->\n<!-- end -->")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (int, "whole number"),
        (float | None, "number or none"),
        (Literal["a", "b"], '`"a"`, `"b"`'),
        (list[Annotated[float, Field(ge=1)]], "list of number"),
        (tuple[float, float], "list of 2 numbers"),
        (tuple[str, ...], "list of text"),
        (dict[str, float], "table"),
    ],
)
def test_types_in_words(kind: object, words: str) -> None:
    assert type_words(kind) == words


def test_a_thresholds_meaning_is_the_string_below_it_or_below_that_of_the_class_above() -> None:
    @dataclass
    class Above:
        low: int
        """Smallest."""
        high: int
        """Largest."""

    @dataclass
    class Below(Above):
        low: int = 3
        high: int = 4
        """Largest, kept when equal."""

    assert attribute_docs(Below) == {"low": "Smallest.", "high": "Largest, kept when equal."}
