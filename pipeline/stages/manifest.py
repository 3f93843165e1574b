"""Put a stage's figures together: for its manifest, and as the short table at the end of a run."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from manifests.journal import ShardRecord, records_of, total_dropped
from manifests.manifest import Manifest
from manifests.query import connect, files_sql
from pipeline.analysis.forecast import beside
from pipeline.execution.progress import clock
from pipeline.inputs.files import InputFile
from pipeline.recipes.schema import Recipe
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


def print_summary(recipe: Recipe, manifest: Manifest, made: int, before: int, seconds: float) -> None:
    """Print rows in, kept, dropped by reason, losses, weights that are stand-ins, time, and where the results are."""
    stage = manifest.stage
    if not made:
        print(f"{stage}: nothing to do, all {before} shards were done; digest {manifest.digest[:16]}")
    print(f"\n  {stage}\n  {'rows in':<24}{manifest.rows_in:>10,}\n  {'kept':<24}{manifest.kept:>10,}")
    for tier, count in manifest.tiers.items():
        size = f" {recipe.tier[tier].size} px" if tier in recipe.tier else ""
        print(f"    {tier + size:<22}{count:>10,}")
    print(f"  {'dropped':<24}{sum(manifest.dropped.values()):>10,}")
    for reason, count in manifest.dropped.items():
        print(f"    {reason:<22}{count:>10,}")
    for what, predicted, actual in (
        beside(recipe.root, manifest.rows_in, manifest.kept, manifest.dropped, manifest.tiers)
        if (stage == "filter")
        else ()
    ):
        print(f"  predicted {what:<20} {predicted:>28}   actual {actual:>12}")
    for loss in manifest.losses:
        what = (
            loss["fault"] if loss["kind"] == "file" else f"row group {loss['row_group']} is broken, {loss['rows']} rows"
        )
        print(f"  lost: {loss['name']}: {what}")
    for tier, codes in manifest.facts.get("codes", {}).items():
        precision, share = codes["agreement"]["precision"], codes["agreement"]["share"]
        holds = codes["checkpoint"]
        used = "unrecorded" if holds["codebook_used"] is None else f"{holds['codebook_used']:.1%} used"
        print(f"  {tier}: {codes['crop']} crops by {codes['tokenizer']}, {precision}: {share:.2%} of codes as in fp32")
        print(
            f"    codebook {holds['codebook']:,} x {holds['code_dim']} ({used} in training), fingerprint"
            f" {codes['fingerprint'][:16]}"
        )
    for tier, t5 in manifest.facts.get("t5", {}).items():
        without = "".join(f", {count:,} without ({reason})" for reason, count in t5["without"].items())
        print(f"  {tier}: T5 features of caption {t5['caption']!r}: {t5['with']:,}{without}")
    for entry in manifest.weights:
        if entry["stand_in"]:
            print(f"  {entry['name']}: stand-in weights (seeded random): its values mean nothing")
    print(
        f"  time {clock(seconds)}, {made} shards made, {before} were done before\n  digest {manifest.digest}\n  results"
        f" in {recipe.root}",
        flush=True,
    )
