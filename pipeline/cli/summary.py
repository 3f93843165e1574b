"""Say what a stage did: rows, reasons, losses, stand-in weights, time; as lines or as a document."""

from collections.abc import Iterator, Mapping
from typing import Any

from manifests.manifest import Manifest
from pipeline.analysis.forecast import beside
from pipeline.cli.output import put
from pipeline.execution.progress import clock
from pipeline.recipes.captions import captioners
from pipeline.recipes.schema import Recipe
from pipeline.stages.run import Finished

Prices = Mapping[str, tuple[float, float]]
NAMED_GROUPS = 5
"""So many broken row groups of a file are named; the manifest names all."""


def summary(finished: Finished) -> dict[str, Any]:
    """Return what a stage did, for JSON: counts of rows, seconds, and its manifest's digest."""
    manifest = finished.manifest
    return {
        "stage": manifest.stage,
        "rows_in": manifest.rows_in,
        "kept": manifest.kept,
        "tiers": manifest.tiers,
        "dropped": manifest.dropped,
        "losses": manifest.losses,
        "facts": manifest.facts,
        "stand_ins": _stand_ins(manifest),
        "shards_made": finished.made,
        "shards_before": finished.before,
        "seconds": round(finished.seconds, 3),
        "digest": manifest.digest,
    }


def print_summary(recipe: Recipe, finished: Finished) -> None:
    """Print rows in, kept, dropped by reason, losses, weights that are stand-ins, time, and where the results are."""
    put("\n".join(summary_lines(recipe, finished)))


def summary_lines(recipe: Recipe, finished: Finished) -> Iterator[str]:
    """Yield the lines of a stage's summary."""
    manifest, stage = finished.manifest, finished.manifest.stage
    if not finished.made:
        yield f"{stage}: nothing to do, all {finished.before} shards were done; digest {manifest.digest[:16]}"
    yield from _rows(recipe, manifest)
    yield from _losses(manifest)
    yield from _facts(manifest, _prices(recipe))
    yield from (f"  {name}: stand-in weights (seeded random): its values mean nothing" for name in _stand_ins(manifest))
    yield f"  time {clock(finished.seconds)}, {finished.made} shards made, {finished.before} were done before"
    yield f"  digest {manifest.digest}\n  results in {recipe.root}"


def _rows(recipe: Recipe, manifest: Manifest) -> Iterator[str]:
    """Yield the funnel: rows in, kept by tier, dropped by reason, and what was predicted of them."""
    yield f"\n  {manifest.stage}\n  {'rows in':<24}{manifest.rows_in:>10,}\n  {'kept':<24}{manifest.kept:>10,}"
    for tier, count in manifest.tiers.items():
        size = f" {recipe.tier[tier].size} px" if tier in recipe.tier else ""
        yield f"    {tier + size:<22}{count:>10,}"
    yield f"  {'dropped':<24}{sum(manifest.dropped.values()):>10,}"
    yield from (f"    {reason:<22}{count:>10,}" for reason, count in manifest.dropped.items())
    if manifest.stage == "filter":
        for what, predicted, actual in beside(
            recipe.root, manifest.rows_in, manifest.kept, manifest.dropped, manifest.tiers
        ):
            yield f"  predicted {what:<20} {predicted:>28}   actual {actual:>12}"


def _losses(manifest: Manifest) -> Iterator[str]:
    """Yield what was lost, each file once: its fault, or its broken row groups and their rows."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for loss in manifest.losses:
        if loss["kind"] == "row_group":
            groups.setdefault(loss["name"], []).append(loss)
        else:
            yield f"  lost: {loss['name']}: {loss['fault']}"
    for name, broken in groups.items():
        numbers = ", ".join(str(loss["row_group"]) for loss in broken[:NAMED_GROUPS])
        more = f" and {len(broken) - NAMED_GROUPS:,} more" if len(broken) > NAMED_GROUPS else ""
        are = "row groups {} are" if len(broken) > 1 else "row group {} is"
        yield f"  lost: {name}: {are.format(numbers + more)} broken, {sum(loss['rows'] for loss in broken)} rows"


def _facts(manifest: Manifest, prices: Prices) -> Iterator[str]:
    """Yield what filter says of refusals and lists of hashes, and pretokenize of each tier: its codes, their tokenizer,
    and T5 features."""
    for signal, rows in manifest.facts.get("refusals", {}).items():
        yield f"  refused: {signal}: {rows:,}"
    for name, rows in manifest.facts.get("removed_by_list", {}).items():
        yield f"  removed by list of hashes: {name}: {rows:,}"
    yield from _captions(manifest, prices)
    for tier, codes in manifest.facts.get("codes", {}).items():
        precision, share = codes["agreement"]["precision"], codes["agreement"]["share"]
        holds = codes["checkpoint"]
        used = "unrecorded" if holds["codebook_used"] is None else f"{holds['codebook_used']:.1%} used"
        yield f"  {tier}: {codes['crop']} crops by {codes['tokenizer']}, {precision}: {share:.2%} of codes as in fp32"
        yield (
            f"    codebook {holds['codebook']:,} x {holds['code_dim']} ({used} in training), fingerprint"
            f" {codes['fingerprint'][:16]}"
        )
    for tier, t5 in manifest.facts.get("t5", {}).items():
        without = "".join(f", {count:,} without ({reason})" for reason, count in t5["without"].items())
        yield f"  {tier}: T5 features of caption {t5['caption']!r}: {t5['with']:,}{without}"


def _prices(recipe: Recipe) -> Prices:
    """Return captioner -> prices of a million tokens of its questions and of its answers, where the recipe names
    any."""
    tables = {name: recipe.caption.options(name) for name in captioners(recipe)}
    prices = {name: (table.get("price_prompt"), table.get("price_answer")) for name, table in tables.items()}
    return {name: (asked or 0.0, said or 0.0) for name, (asked, said) in prices.items() if asked or said}


def _captions(manifest: Manifest, prices: Prices) -> Iterator[str]:
    """Yield what each captioner said, what it took, and what became of it."""
    for name, said in manifest.facts.get("captioners", {}).items():
        if not isinstance(said, dict):  # of a run before captions were judged: a number
            continue
        second = f", {said['second_attempts']:,} of them a second one" if said["second_attempts"] else ""
        yield (
            f"  {name}: {said['captions']:,} captions of {said['pictures']:,} pictures, {said['attempts']:,}"
            f" attempts{second}; the same words again: {said['same_words_again']}"
        )
        asked = said.get("prompt_tokens", 0)
        of_question, of_answer = prices.get(name, (0.0, 0.0))
        spent = (of_question * asked + of_answer * said["tokens"]) / 1e6
        cost = f": {spent:,.2f} by the recipe's prices" if name in prices else ""
        yield f"    tokens  {asked:,} of questions, {said['tokens']:,} of answers{cost}"
        for what in ("flags", "actions", "origins"):
            if said[what]:
                yield f"    {what:<8}" + ", ".join(f"{one} {count:,}" for one, count in said[what].items())


def _stand_ins(manifest: Manifest) -> list[str]:
    return [entry["name"] for entry in manifest.weights if entry["stand_in"]]
