"""Put a stage's manifest together from what its steps say of themselves."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from manifests.files import digest_of
from manifests.journal import records_of, total_dropped
from manifests.lineage import former
from manifests.manifest import Manifest
from manifests.reasons import check_known
from manifests.shard_table import shard_table
from pipeline.execution.planned import Keys, need_planned
from pipeline.execution.step import Step
from pipeline.inputs.input_list import registered_files
from pipeline.recipes.rules import every_rule, files_behind
from pipeline.recipes.schema import Recipe
from pipeline.recipes.user_captioners import files_behind_captions
from pipeline.stages.registry import NEEDS

PACKAGES = (
    "apache-beam",
    "duckdb",
    "numpy",
    "onnxruntime",
    "open_clip_torch",
    "pillow",
    "pyarrow",
    "scipy",
    "timm",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)


def versions() -> dict[str, str]:
    """Return the versions that the digest is promised for: packages, Python, processor."""
    versions_of = {"python": platform.python_version(), "machine": f"{platform.machine()} {_processor()}".strip()}
    for name in ("tessera-t2i", *PACKAGES):
        try:
            versions_of[name] = version(name)
        except PackageNotFoundError:
            versions_of[name] = "not installed"
    return versions_of


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def stage_figures(steps: Sequence[Step], planned: Mapping[str, Keys] | None = None) -> dict[str, Any]:
    """Return what a stage's manifest says of its rows, from the journals of its steps: rows_in, kept, dropped, tiers,
    facts and shards. `planned`: by step the units of this run; RunFailed where a journal holds anything else."""
    records = {step.name: records_of(step.root, step.name) for step in steps}
    for step, keys in (planned or {}).items():
        need_planned(step, records[step], keys)
    results = {step.name: step.results(records[step.name]) for step in steps}
    counted = [record for step in steps if step.counts_rows for record in results[step.name]]
    return {
        "rows_in": sum(record.rows_in for record in counted),
        "kept": sum(record.rows_out for record in results[steps[-1].name]),
        "dropped": total_dropped(counted),
        "tiers": {tier: count for step in steps for tier, count in step.tiers().items()},
        "facts": {name: fact for step in steps for name, fact in step.facts().items()},
        "shards": shard_table(records),
    }


class TooManyLosses(RuntimeError):
    """The run ended, but lost more of its input than the recipe allows (exit code 3)."""


def write_manifest(
    recipe: Recipe, stage: str, steps: list[Step], planned: Mapping[str, Keys] | None = None
) -> Manifest:
    """Put a stage's manifest together from its steps' journals and write it. `planned` as in `stage_figures`."""
    figures = stage_figures(steps, planned)
    check_known(figures["dropped"], [str(rule.get("name", rule["use"])) for rule in every_rule(recipe)])
    weights = {(file.name, file.sha256): file.record() for step in steps for file in step.weights()}
    files = registered_files(recipe.root) if stage == "filter" else []
    parents = [
        {
            "name": f"manifests/{before}.json",
            "digest": Manifest.read(recipe.root / "manifests" / f"{before}.json").digest,
        }
        for before in _parents(recipe, stage)
    ]
    behind = {"filter": files_behind, "caption": files_behind_captions}.get(stage)
    own = [{"name": name, "sha256": sha256} for name, sha256 in (behind(recipe) if behind else ())]
    manifest = Manifest(
        stage=stage,
        recipe_digest=digest_of([[step.name, step.version, step.settings()] for step in steps]),
        inputs=[file.record() for file in files if not file.fault] + [*parents, *own],
        weights=[weights[key] for key in sorted(weights)],
        losses=[loss for step in steps for loss in step.losses()],
        versions=versions(),
        parent=former(recipe.root, stage),
        **figures,
    )
    manifest.write(recipe.root)
    return manifest


def _parents(recipe: Recipe, stage: str) -> list[str]:
    if stage == "pretokenize" and (recipe.root / "manifests" / "caption.json").is_file():
        return ["filter", "caption"]
    return [before] if (before := NEEDS[stage]) else []


def check_losses(recipe: Recipe, manifest: Manifest) -> None:
    """Raise TooManyLosses above `input.max_loss` of files that cannot be opened or hold no URL, or of rows in broken
    row groups."""
    kinds = Counter(loss["kind"] for loss in manifest.losses)
    unreadable = kinds["file"] + kinds["urls"]
    files = kinds["file"] + len([entry for entry in manifest.inputs if "rows" in entry])
    rows = manifest.dropped.get("broken_row_group", 0)
    for what, lost, of in (("files", unreadable, files), ("rows", rows, manifest.rows_in)):
        if of and lost / of > recipe.input.max_loss:
            raise TooManyLosses(
                f"{manifest.stage}: lost {lost} of {of} {what}, more than input.max_loss = {recipe.input.max_loss}; the"
                " manifest names them"
            )
