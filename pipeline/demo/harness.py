"""Give a stage of the demo what it needs around it: the data made, the server up, and afterwards the truth told."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from manifests.files import read_parquet
from manifests.journal import records_of
from pipeline.demo.data import DemoData, DemoError, attribution, prepare
from pipeline.demo.server import connect_to, serve
from pipeline.execution.step import Runtime
from pipeline.recipes.schema import Recipe, RecipeError


def demo_data(recipe: Recipe) -> DemoData:
    """Make the demo's data beside its input files, or find it made. Raises RecipeError."""
    files = recipe.input.files
    if not isinstance(files, str) or Path(files).parent.name != "input":
        raise RecipeError(f"input.files: the demo makes its own table, wanted FOLDER/input/*.parquet, got {files!r}")
    try:
        return prepare(Path(files).parent.parent, emoji=recipe.input.dataset == "demo")
    except (DemoError, ValueError) as error:
        raise RecipeError(str(error)) from error


@contextlib.contextmanager
def serving(recipe: Recipe, stages: tuple[str, ...]) -> Iterator[Runtime]:
    """Serve the demo's made-up hosts on 127.0.0.1 while the block runs, if a stage fetches; yield where they are."""
    if "filter" not in stages:
        yield Runtime()
        return
    data = demo_data(recipe)
    with serve(data) as port:
        yield Runtime(connect_to=connect_to(data, port), serving=f"127.0.0.1:{port}")


def final_table(root: Path) -> pa.Table | None:
    """Return the final ledger as one table, or None where filter has not run."""
    paths = [root / file.path for record in records_of(root, "decide") for file in record.files]
    return pa.concat_tables([read_parquet(path) for path in paths]) if paths else None


def tell_truth(recipe: Recipe) -> None:
    """Print each filter's precision and recall against what was planted, and the credits; write both beside the
    results."""
    from pipeline.evaluation.ground_truth import summary

    data, final = demo_data(recipe), final_table(recipe.root)
    if final is None:
        return
    table = summary(final, read_parquet(data.truth))
    print(f"\nwhat was planted, and what the filters made of it\n{table}\n", file=sys.stderr)
    credit = attribution(data.has_emoji)
    (recipe.root / "truth.txt").write_text(table + "\n", encoding="utf-8")
    (recipe.root / "ATTRIBUTION.md").write_text(credit, encoding="utf-8")
    print(credit, file=sys.stderr)
