"""Make run folders with the code of the commit before features were made by packed shard: their T5 shards are the
encoded ones."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.old_run import take_out
from tests.support.small_web import write_input, write_recipe

COMMIT = "d33f18363f59810ed14239c176609a84ddd95439"
SCRIPT = """
import json, shutil, sys
from pipeline.recipes.load import load_recipe
from pipeline.stages.run import StageOptions, run_stage
from tests.support.keep_runs import without_beam

recipe, runs = json.loads(sys.argv[1])
with without_beam():
    for folder, stages, sets in runs:
        for stage in stages:
            run_stage(load_recipe(recipe, [*sets, f'output.root="{folder}"']), stage, StageOptions())
"""


def make(out: Path, web: str, runs: dict[str, list[str]]) -> Path:
    """Make the run folders `out`/NAME with these settings beside those of `out`/recipe.toml; return that file."""
    recipe = write_recipe(out / "recipe.toml", web, write_input(out / "in"), out / "run")
    code = take_out(COMMIT, out / "code")
    stages = ["filter", "caption", "pretokenize"]
    told = [str(recipe), [[str(out / name), stages, sets] for name, sets in runs.items()]]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(code), "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(told)]
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return recipe
