"""Run the filter stage in the test's own process, without Beam, and read what it decided."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.manifest import Manifest
from pipeline.recipes.load import load_recipe
from pipeline.stages.registry import STAGES
from pipeline.stages.run import StageOptions, run_stage


def run_filter(recipe: Path, root: Path, *sets: str) -> Manifest:
    """Run filter into `root` with these --set values and return its manifest."""
    with pytest.MonkeyPatch.context() as patch:
        for step in STAGES["filter"]:
            patch.setattr(step, "beam", False)
        made = run_stage(load_recipe(recipe, [*sets, f'output.root="{root}"']), "filter", StageOptions())
    assert made is not None
    return made.manifest


def final_rows(root: Path) -> list[dict[str, Any]]:
    """Return the rows of `ledger/final`, in order."""
    paths = sorted((root / "ledger" / "final").glob("*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in paths).to_pylist()
