"""Read the options for Beam that stand behind `--`, and refuse those that nobody knows."""

import difflib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from pipeline.recipes.schema import RecipeError

NEAREST = 3
"""Known names that a message shows."""


@dataclass(frozen=True)
class Flag:
    """One option: `--NAME=VALUE`, `--NAME VALUE` or `--NAME`, and the words that it was given in."""

    name: str
    value: str
    words: tuple[str, ...]


def flags(words: Sequence[str]) -> Iterator[Flag]:
    """Yield the options that words say. Raises RecipeError for a word that belongs to none, and for Beam's --runner."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise RecipeError(f"{word!r}: a word that belongs to no option; options for Beam are --NAME=VALUE")
        name, equals, value = word[2:].partition("=")
        if name == "runner":
            raise RecipeError(f"-- {word}: the runner is said by the command's own --runner, before the `--`")
        if equals or not rest or rest[0].startswith("--"):
            yield Flag(name, value, (word,))
        else:
            yield Flag(name, rest[0], (word, rest.pop(0)))


def known_flags() -> set[str]:
    """Return the names of the options of Beam's Python side. Imports Beam."""
    import argparse

    from apache_beam.options.pipeline_options import PipelineOptions

    parser = argparse.ArgumentParser(add_help=False)
    logging.disable(logging.WARNING)  # of packages that an option's default looks for
    try:
        for kind in PipelineOptions.__subclasses__():
            kind._add_argparse_args(parser)
    finally:
        logging.disable(logging.NOTSET)
    return {word.lstrip("-") for action in parser._actions for word in action.option_strings}


def check_flags(words: Sequence[str], more: Collection[str] = ()) -> None:
    """Raise RecipeError for an option that neither Beam's Python side nor the job server (`more`) knows."""
    given = list(flags(words))
    if not given:
        return
    known = known_flags() | set(more)
    for flag in given:
        if flag.name not in known:
            near = difflib.get_close_matches(flag.name, known, NEAREST) or sorted(known)[:NEAREST]
            raise RecipeError(
                f"--{flag.name}: no option of Beam{' or of the job server' if more else ''};"
                f" the nearest: {', '.join(f'--{name}' for name in near)}"
            )
