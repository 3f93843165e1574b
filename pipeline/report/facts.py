"""Read what a run folder holds, whatever stage it has reached, into the facts that a report shows."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from manifests.files import FormatError, read_json, read_parquet
from manifests.query import FILES, batches, connect, files_sql
from manifests.weights import WeightsFile
from pipeline.analysis.caption_facts import Audit
from pipeline.analysis.forecast import beside
from pipeline.evaluation.ground_truth import joined
from pipeline.report.captions import read_captions
from pipeline.report.examples import Examples, read_examples
from pipeline.report.planted import Planted, compare
from pipeline.report.training import Training, read_training

STAND_IN = "stand-in weights"
"""How every output names numbers and words of random weights."""
STEPS = {
    "input": "address and text are usable",
    "fetch": "the picture arrived",
    "image": "it is a sound picture",
    "rules": "it passes the rules",
    "set": "it is the first of its kind",
}
"""Group of reasons -> what a row is that passed it."""


@dataclass(frozen=True)
class Fates:
    """Rows by what became of them: `dropped` by reason, `tiers` by tier (a kept row may be in several)."""

    rows_in: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    tiers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Stages:
    """What the manifests say.

    `digests`: stage -> digest; `losses`: files that could not be opened, a line each; `refusals`: signal -> rows;
    `removed`: list of hashes -> rows.
    """

    digests: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[WeightsFile, ...] = ()
    fates: Fates = field(default_factory=Fates)
    losses: tuple[str, ...] = ()
    stand_in_captions: bool = False
    refusals: Mapping[str, int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """What `pipeline plan` predicted of one number of rows, and what came out; both as they are printed."""

    name: str
    predicted: str
    actual: str


@dataclass(frozen=True)
class Facts:
    """All that the report says of one run. Empty parts are stages that have not run."""

    name: str
    stages: Stages = field(default_factory=Stages)
    predictions: tuple[Prediction, ...] = ()
    examples: Examples = field(default_factory=Examples)
    planted: Planted | None = None
    training: Training = field(default_factory=Training)
    captions: Audit | None = None

    @property
    def fates(self) -> Fates:
        """Return the rows by what became of them."""
        return self.stages.fates

    @property
    def has_stand_ins(self) -> bool:
        """Tell whether any number or word of this run comes from stand-in weights."""
        return any(weights.stand_in for weights in self.stages.weights)


def gather(root: Path, truth: Path | None = None) -> Facts:
    """Return the facts of the run folder `root`; `truth` is the demo's truth table. Missing parts stay empty.

    Raises TruthError where the table speaks of rows that the ledger lacks.
    """
    stages = read_stages(root)
    ledgers = sorted((root / "ledger" / "final").glob("*.parquet"))
    if ledgers and not stages.fates.rows_in:
        stages = replace(stages, fates=count_fates(root, ledgers))
    examples, planted = Examples(), None
    if ledgers:
        said = f"recaptioned with {STAND_IN}" if stages.stand_in_captions else "recaptioned"
        examples = read_examples(root, ledgers, list(stages.fates.tiers), said)
    if ledgers and truth is not None and truth.is_file():
        rows = joined(pa.concat_tables(read_parquet(path) for path in ledgers), read_parquet(truth))
        examples = examples.with_texts({row["uid"].hex(): row["text"] or "" for row in rows if row["uid"]})
        planted = compare(rows) if rows else None
    return Facts(
        "/".join(root.resolve().parts[-2:]),
        stages,
        tuple(_predictions(root, stages.fates)),
        examples,
        planted,
        read_training(root),
        read_captions(root),
    )


def read_stages(root: Path) -> Stages:
    """Return what the stages' manifests say; one that is missing or cannot be read is left out."""
    manifests = dict(_manifests(root))
    weights = {stage: _weights(manifest) for stage, manifest in manifests.items()}
    chosen = manifests.get("filter", {})
    return Stages(
        {stage: str(manifest.get("digest", "")) for stage, manifest in manifests.items()},
        tuple(dict.fromkeys(file for files in weights.values() for file in files)),
        _fates(chosen) if chosen else Fates(),
        tuple(" ".join(map(str, loss.values())) for loss in chosen.get("losses", [])),
        any(file.stand_in for file in weights.get("caption", ())),
        dict(chosen.get("facts", {}).get("refusals", {})),
        dict(chosen.get("facts", {}).get("removed_by_list", {})),
    )


def _manifests(root: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (stage, manifest) of the manifests that count rows; others lie beside them."""
    for path in sorted((root / "manifests").glob("*.json")):
        with contextlib.suppress(OSError, FormatError):
            manifest = read_json(path)
            if "rows_in" in manifest:
                yield path.stem, manifest


def _weights(manifest: Mapping[str, Any]) -> list[WeightsFile]:
    entries = manifest.get("weights", [])
    return [WeightsFile(entry["name"], entry["sha256"], bool(entry["stand_in"])) for entry in entries]


def _fates(manifest: Mapping[str, Any]) -> Fates:
    dropped, tiers = dict(manifest["dropped"]), dict(manifest.get("tiers", {}))
    return Fates(manifest["rows_in"], manifest["kept"], dropped, tiers)


def count_fates(root: Path, ledgers: Sequence[Path]) -> Fates:
    """Count the files of `ledger/final` themselves: what to say where no manifest stands yet."""
    dropped, tiers = Counter[str](), Counter[str]()
    with connect(root) as connection:
        for some in batches(ledgers, FILES):
            final = files_sql(some)
            reasons = f"SELECT coalesce(reason, ''), count(*) FROM {final} GROUP BY 1"
            within = f"SELECT tier, count(*) FROM (SELECT unnest(tiers) AS tier FROM {final}) GROUP BY 1"
            dropped.update(dict(connection.execute(reasons).fetchall()))
            tiers.update(dict(connection.execute(within).fetchall()))
    kept = dropped.pop("", 0)
    by_count = sorted(dropped.items(), key=lambda entry: (-entry[1], entry[0]))
    return Fates(kept + dropped.total(), kept, dict(by_count), dict(sorted(tiers.items())))


def _predictions(root: Path, fates: Fates) -> Iterator[Prediction]:
    if fates.rows_in:
        for line in beside(root, fates.rows_in, fates.kept, fates.dropped, fates.tiers):
            yield Prediction(*line)
