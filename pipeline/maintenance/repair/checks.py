"""Refuse a repair that would not make the same bytes: other settings, weights, packages or processor than a step was
done with."""

import json

from manifests.manifest import Manifest
from pipeline.execution.step import Step
from pipeline.recipes.schema import RecipeError
from pipeline.stages.manifest import versions


class Refused(RecipeError):
    """What is at hand would not make the same bytes: other settings, weights or versions (exit code 2)."""


def same_settings(step: Step) -> None:
    """Raise Refused where the recipe or the weights at hand are not those that the step was done with."""
    own_key = step.own_key
    before = step.journal.note()
    if before is None or before["own_key"] == own_key:  # without a note the keys of its shards tell
        return
    now, then = json.loads(json.dumps(step.settings())), before["settings"]
    others = [
        f"{name}: got {now.get(name)!r}, wanted {then.get(name)!r}"
        for name in sorted({*now, *then})
        if now.get(name) != then.get(name)
    ]
    what = "; ".join(others) or f"weights or version: key {own_key[:16]}…, wanted {before['own_key'][:16]}…"
    raise Refused(
        f"repair: {step.name} was made with other settings than this recipe's ({what}); give the recipe it was made"
        " with (--recipe FILE)"
    )


def same_versions(stage: str, manifest: Manifest | None) -> None:
    """Raise Refused where packages or processor are not those of the manifest: the same bytes are promised for one set
    of versions."""
    if manifest is None:
        return
    now = versions()
    others = [
        f"{name}: got {now.get(name)}, wanted {then}"
        for name, then in manifest.versions.items()
        if now.get(name) != then
    ]
    if others:
        raise Refused(
            f"repair: {stage} was made with other versions ({'; '.join(others)}); install those, or add"
            " --other-versions to try: only files of the recorded sha256 are taken"
        )
