"""The training command with a GPT-demo of 2 layers of width 96, in this process or as one of its own."""

import sys

from pipeline.gpt_spec import SIZES
from pipeline.train import main

SMALL = (2, 3, 96)
"""Layers, heads, width."""
BEAM = 3
"""The exit code of a training process that imported Beam."""


def command(*args: object) -> list[str]:
    """Return the words that start it in a process of its own."""
    return [sys.executable, "-m", "tests.support.small_training", *map(str, args)]


if __name__ == "__main__":
    SIZES["GPT-demo"] = SMALL
    code = main()
    sys.exit(BEAM if "apache_beam" in sys.modules else code)
