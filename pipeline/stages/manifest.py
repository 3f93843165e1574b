"""Put a stage's figures together: for its manifest, and as the short table at the end of a run."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from manifests.files import digest_of
from manifests.journal import ShardRecord, records_of, total_dropped
from manifests.lineage import former
from manifests.manifest import Manifest, shard_list
from manifests.query import connect, files_sql
from manifests.reasons import check_known
from pipeline.execution.step import Step
from pipeline.inputs.files import InputFile
from pipeline.inputs.input_list import registered_files
from pipeline.recipes.rules import every_rule, files_behind
from pipeline.recipes.schema import Recipe
from pipeline.stages.registry import NEEDS
from pipeline.steps.encode import tokenizer_facts
from pipeline.steps.score import score_facts
from pipeline.steps.t5 import t5_facts

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
    found = {"python": platform.python_version(), "machine": f"{platform.machine()} {_processor()}".strip()}
    for name in ("tessera-t2i", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def stage_figures(recipe: Recipe, stage: str, records: Mapping[str, Sequence[ShardRecord]]) -> dict[str, Any]:
    """Return the manifest's rows_in, kept, dropped, tiers and facts."""
    if stage == "filter":
        final = records["decide"][0]
        return {
            "rows_in": final.rows_in,
            "kept": final.rows_out,
            "dropped": total_dropped([final]),
            "tiers": _tiers(recipe),
            "facts": {"scores": score_facts(recipe)},
        }
    last = records["caption" if stage == "caption" else "pack"]
    first = records["caption" if stage == "caption" else "encode"]
    made: Counter[str] = Counter()
    for record in last:
        made[record.shard.rpartition("-")[0]] += record.rows_out
    counts = dict(sorted(made.items()))
    return {
        "rows_in": sum(record.rows_in for record in first),
        "kept": sum(record.rows_out for record in last),
        "dropped": total_dropped(first),
        "tiers": counts if stage == "pretokenize" else {},
        "facts": (
            {"captioners": counts} if stage == "caption" else {"codes": tokenizer_facts(recipe), **_with_t5(recipe)}
        ),
    }


def _with_t5(recipe: Recipe) -> dict[str, Any]:
    facts = t5_facts(recipe)
    return {"t5": facts} if facts else {}


def _tiers(recipe: Recipe) -> dict[str, int]:
    finals = [recipe.root / file.path for record in records_of(recipe.root, "decide") for file in record.files]
    counts = dict.fromkeys(recipe.tier, 0)
    if finals:
        with connect(recipe.root) as connection:
            found = connection.execute(
                f"SELECT tier, count(*) FROM (SELECT unnest(tiers) AS tier FROM {files_sql(finals)}) GROUP BY tier"
            ).fetchall()
        counts.update(dict(found))
    return counts


def losses(root: Path, files: Sequence[InputFile]) -> list[dict[str, Any]]:
    """Return what could not be read: whole files, outside rows_in, and row groups, whose rows are counted as
    dropped."""
    lost: list[dict[str, Any]] = [
        {"kind": "file", "name": file.name, "fault": file.fault, "bytes": file.bytes, "footer_sha256": file.footer}
        for file in files
        if file.fault
    ]
    if not files:
        return lost
    finals = [root / file.path for record in records_of(root, "decide") for file in record.files]
    with connect(root) as connection:
        query = (
            f"SELECT source, source_row FROM {files_sql(finals)} WHERE reason = 'broken_row_group' ORDER BY source,"
            " source_row"
        )
        rows = connection.execute(query).fetchall() if finals else []
    for file in files:
        broken = {row for source, row in rows if source == file.name}
        first = 0
        for group, count in enumerate(file.groups):
            if first in broken and count:
                lost.append({"kind": "row_group", "name": file.name, "row_group": group, "rows": count})
            first += count
    return lost


class TooManyLosses(RuntimeError):
    """The run ended, but lost more of its input than the recipe allows (exit code 3)."""


def write_manifest(recipe: Recipe, stage: str, steps: list[Step]) -> Manifest:
    """Put a stage's manifest together from its steps' journals and write it."""
    records = {step.name: records_of(recipe.root, step.name) for step in steps}
    figures = stage_figures(recipe, stage, records)
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
    own = [{"name": name, "sha256": sha256} for name, sha256 in files_behind(recipe)] if stage == "filter" else []
    manifest = Manifest(
        stage=stage,
        recipe_digest=digest_of([[step.name, step.version, step.settings()] for step in steps]),
        inputs=[file.record() for file in files if not file.fault] + [*parents, *own],
        weights=[weights[key] for key in sorted(weights)],
        shards=[entry for name, found in records.items() for entry in shard_list(name, found)],
        losses=losses(recipe.root, files),
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
    """Raise TooManyLosses above `input.max_loss` of unreadable files, or of rows in broken row groups."""
    unreadable = sum(loss["kind"] == "file" for loss in manifest.losses)
    files = unreadable + len([entry for entry in manifest.inputs if "rows" in entry])
    rows = manifest.dropped.get("broken_row_group", 0)
    for what, lost, of in (("files", unreadable, files), ("rows", rows, manifest.rows_in)):
        if of and lost / of > recipe.input.max_loss:
            raise TooManyLosses(
                f"{manifest.stage}: lost {lost} of {of} {what}, more than input.max_loss = {recipe.input.max_loss}; the"
                " manifest names them"
            )
