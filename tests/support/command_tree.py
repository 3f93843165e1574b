"""What the command line offers: `pipeline` with its commands, and the modules that are run with python -m."""

import re
from dataclasses import fields
from typing import Any

from tests.support.paths import ROOT

PARSED = (
    *("pipeline.train", "pipeline.execution.pool", "pipeline.sampling.options"),
    *("deploy.jars", "deploy.cluster", "deploy.demo", "deploy.chaos"),
)
"""Modules with a parser of their own, whose options are read from their text."""


def command_tree() -> dict[str, set[str]]:
    """Return command -> its options, for `pipeline` and the modules that are run with python -m."""
    import typer
    from typer.main import get_command

    from deploy.settings import Settings
    from pipeline.cli import app
    from pipeline.demo.__main__ import demo

    def options(command: Any) -> set[str]:
        return {name for parameter in command.params for name in parameter.opts if name.startswith("-")} | {"--help"}

    tree: dict[str, set[str]] = {}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        tree[f"pipeline {name}"] = options(command)
        tree.update(
            {f"pipeline {name} {inner}": options(one) for inner, one in getattr(command, "commands", {}).items()}
        )
    single = typer.Typer()
    single.command()(demo)
    written = {name: (ROOT / name.replace(".", "/")).with_suffix(".py") for name in PARSED}
    parsed = {name: set(re.findall(r'"(--[a-z-]+)"', path.read_text())) for name, path in written.items()}
    parsed["deploy.cluster"] |= {f"--{one.name.replace('_', '-')}" for one in fields(Settings)}
    drawing = parsed.pop("pipeline.sampling.options") | {"--help", "--no-compile"}
    return {
        **tree,
        **dict.fromkeys(("pipeline sample", "python -m pipeline.sample"), drawing),
        "pipeline": {"--help"},
        "python -m pipeline.demo": options(get_command(single)),
        **{f"python -m {name}": known | {"--help"} for name, known in parsed.items()},
    }
