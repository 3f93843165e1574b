"""Print what a stage did: rows, reasons, losses, stand-in weights, time."""

from pipeline.analysis.forecast import beside
from pipeline.execution.progress import clock
from pipeline.recipes.schema import Recipe
from pipeline.stages.run import Finished


def print_summary(recipe: Recipe, finished: Finished) -> None:
    """Print rows in, kept, dropped by reason, losses, weights that are stand-ins, time, and where the results are."""
    manifest, made, before = finished.manifest, finished.made, finished.before
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
    shards = f"{made} shards made, {before} were done before"
    print(
        f"  time {clock(finished.seconds)}, {shards}\n  digest {manifest.digest}\n  results in {recipe.root}",
        flush=True,
    )
