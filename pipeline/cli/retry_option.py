"""Read `--retry-failed [REASON…]`, an option with any number of values: `--retry-failed`, `--retry-failed dns timeout`,
`=dns,timeout`."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from pipeline.cli.errors import fail

OPTION = "--retry-failed"
RetryOption = Annotated[
    list[str] | None,
    typer.Option(
        OPTION,
        metavar="[REASON…]",
        help=(
            "Ask again the fetches that failed: for these reasons (dns timeout http_503 http_5xx …), else for those"
            " that may have passed. Pictures that came stay. With --stage filter."
        ),
    ),
]


class RunCommand(TyperCommand):
    """A command whose --retry-failed takes any number of values, which the parser below typer does not know."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the option with the words after it, then parse as ever."""
        return super().parse_args(ctx, list(joined(args)))


def joined(args: list[str]) -> Iterator[str]:
    """Yield the arguments with `--retry-failed A B` as `--retry-failed=A,B`; nothing behind `--` is touched."""
    rest = list(args)
    while rest and rest[0] != "--":
        word = rest.pop(0)
        if word == OPTION:
            values = []
            while rest and not rest[0].startswith("-"):
                values.append(rest.pop(0))
            word = f"{OPTION}={','.join(values)}"
        yield word
    yield from rest


def retry_reasons(given: list[str] | None, stage: str, steps: tuple[str, ...]) -> tuple[str, ...]:
    """Return the reasons that are asked again, () without the option. Ends with code 2 for what it cannot mean."""
    if given is None:
        return ()
    from pipeline.steps.fetch.retry import parse_reasons

    if stage not in ("filter", "all"):
        fail(f"{OPTION} belongs to --stage filter, where pictures are fetched; got --stage {stage}")
    if steps and "fetch" not in steps:
        fail(f"{OPTION} needs the step fetch; got --step {','.join(steps)}")
    return parse_reasons(given)
