"""Say whose output a file of a run folder is from where it lies alone: what is left to go by when its record is
lost."""

import re

PLAN = "plan.json"
"""Beside a step's planned shards: name -> sha256 of each."""
PLANNED = ("fetch", "caption", "recaption", "encode", "t5", "pack")
"""Steps that write who is in which shard to `manifests/plan/STEP/` before they work."""
DERIVED = ("first",)
"""Steps whose files can be made again from the run's own, and are: they stand in no manifest."""
FETCH_SETTINGS = "manifests/plan/fetch-settings.json"
"""Which settings of [fetch] stand behind the digests under which rows were fetched."""
SCRATCH = ".shuffle"
"""Folder of a run in which rows lie on their way between two groupings: swept when they have come through."""
PARTIAL = ".partial"
"""Folder of a run in which finished rows of a half-done unit lie: gone when the unit is done."""
SINGLE = ("dedup", "decide")
"""Steps that always have one shard, 00000."""
AS_PLANNED = {"score": "fetch", "measure": "caption", "remeasure": "recaption", "judge": "caption"}
"""Step without a plan of its own -> the step whose planned shards it works on."""
OF_EACH_KIND = {"index": "pack"}
"""Step that has one shard, KIND-00000, of each kind of another's -> that step."""
FORMERLY = {"judge": "caption"}
"""Step -> the step that wrote its files in runs of before there was such a step."""
ADDED = {"caption": ("measure", "recaption", "remeasure", "repeats", "judge"), "pretokenize": ("index",)}
"""Stage -> steps that it has got since: a run of before has none of them."""
_PLACES = (
    (r"ledger/(?P<step>select|fetch|first)/(?P<shard>[^/]+)\.parquet", ""),
    (r"pairs/(?P<shard>[^/]+?)(\.tar|\.parquet|_stats\.json)", "fetch"),
    (r"scores/(?P<shard>[^/]+)\.parquet", "score"),
    (r"(dedup/(00000\.parquet|top_hashes\.json)|ledger/(marks|eval_matches)\.parquet)", "dedup"),
    (r"ledger/final/[^/]+\.parquet", "decide"),
    (r"captions/attempts/(?P<shard>[^/]+)\.parquet", "caption"),
    (r"captions/measures/(?P<shard>[^/]+)\.parquet", "measure"),
    (r"captions/retries/(?P<shard>[^/]+)\.parquet", "recaption"),
    (r"captions/remeasures/(?P<shard>[^/]+)\.parquet", "remeasure"),
    (r"captions/repeats/00000\.parquet", "repeats"),
    (r"captions/(?P<shard>[^/]+)\.parquet", "judge"),
    (r"codes/encoded/(?P<shard>[^/]+)\.parquet", "encode"),
    (r"codes/t5/(?P<shard>[^/]+)\.parquet", "t5"),
    (r"codes/(?P<tier>[^/]+)/(?P<number>[^/]+?)(\.tar|\.index\.json)", "pack"),
    (r"codes/(?P<tier>[^/]+)/index\.parquet", "index"),
)


def owner(path: str) -> tuple[str, str]:
    """Return (step, shard) of the output that has this path in a run folder; empty where no step writes there."""
    for pattern, step in _PLACES:
        if found := re.fullmatch(pattern, path):
            parts = {"shard": "00000", "number": "00000", "step": step, **found.groupdict()}
            return parts["step"], f"{parts['tier']}-{parts['number']}" if "tier" in parts else parts["shard"]
    return "", ""


def may_write(step: str, shard: str, path: str) -> bool:
    """Tell whether a step's record of a shard may name this path: its own, one that it wrote in runs of before, or one
    that is no step's."""
    by, of = owner(path)
    return (by, of) in (("", ""), (step, shard)) or (FORMERLY.get(by), of) == (step, shard)


def is_of_before(step: str, path: str) -> bool:
    """Tell whether a step wrote this path in runs of before, and another one does now."""
    return FORMERLY.get(owner(path)[0]) == step
