"""Say what is wrong with the files of a run, and what its records claim: what verify gathers while it reads them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from manifests.files import SEAL, FormatError, json_text, parse_json, parsing, unsealed
from manifests.journal import COPY, FileRecord, ShardRecord
from manifests.layout import AS_PLANNED, OF_EACH_KIND, SINGLE
from manifests.manifest import Manifest
from manifests.regular_files import read_plain

Stages = Mapping[str, Sequence[str]]
"""Stage -> its steps, in order."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one file. `step` and `shard` say whose output it is.

    kind: missing, damaged, foreign (no record names it), stale (whole, but not what another record says); or a note
    that is no fault: leftover (of a dead attempt; the next run sweeps it), unproved (no record of its bytes),
    unfinished.
    """

    path: str
    kind: str
    says: str
    step: str = ""
    shard: str = ""

    @property
    def wrong(self) -> bool:
        """Tell whether verify ends with exit code 1 for it."""
        return self.kind not in ("leftover", "unproved", "unfinished")


def with_cure(findings: Sequence[Finding]) -> list[Finding]:
    """Say of what a manifest alone names, where a journal of its stage was changed since, that the stage's next run
    makes what is wanted of it."""
    behind = {finding.path: finding.step for finding in findings if finding.kind == "stale" and finding.step}
    cured = []
    for finding in findings:
        by = next((name for name in behind if f"though {name} " in finding.says), "")
        if finding.kind == "missing" and by:
            stage = Path(by).stem
            cure = f"the journal of {behind[by]} was changed since: pipeline run --stage {stage} ends what was begun"
            finding = replace(finding, says=f"{finding.says}; {cure}")
        cured.append(finding)
    return cured


@dataclass(frozen=True, slots=True)
class Claim:
    """A file that a record names, and what its bytes must be; bytes -1: not recorded."""

    file: FileRecord
    by: str
    step: str = ""
    shard: str = ""


@dataclass
class Records:
    """What the folder's records say: whole records by place, claims on files, findings so far, paths accounted for,
    planned shards."""

    root: Path
    journal: dict[str, dict[str, ShardRecord]] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    plans: dict[str, set[str]] = field(default_factory=dict)

    def find(self, path: Path | str, kind: str, says: str, step: str = "", shard: str = "") -> None:
        """Note a finding about a path in the folder."""
        name = path if isinstance(path, str) else path.relative_to(self.root).as_posix()
        self.findings.append(Finding(name, kind, says, step, shard))

    def found(self, name: str) -> bool:
        """Tell whether something wrong is already noted about a file."""
        return any(finding.path == name and finding.wrong for finding in self.findings)

    def lost(self, stage: str) -> bool:
        """Tell whether something is wrong with a stage's manifest or its table of shards."""
        return any(self.found(f"manifests/{stage}{end}") for end in (".json", ".parquet"))

    def unread(self, step: str) -> bool:
        """Tell whether neither the table of a step's records nor its copy can be read, which were there."""
        return all(self.found(f"manifests/journal/{step}{end}") for end in (".parquet", COPY))

    def planned(self, step: str) -> set[str] | None:
        """Return the shards that a step has to make, or None where nothing whole says so."""
        if step in OF_EACH_KIND:
            shards = self.planned(OF_EACH_KIND[step])
            return None if shards is None else {f"{shard.rpartition('-')[0]}-00000" for shard in shards}
        return {"00000"} if step in SINGLE else self.plans.get(AS_PLANNED.get(step, step))

    def json(self, path: Path, step: str = "", shard: str = "") -> dict[str, Any] | None:
        """Return a record's content without its seal, or None with a finding where it is missing or not byte for byte
        what was written."""
        name = path.relative_to(self.root).as_posix()
        self.known.add(name)
        try:
            data = read_plain(path)
            value, sealed = unsealed(path, data)
            text = _as_written(path, data)
        except FileNotFoundError:
            self.find(name, "missing", "not there", step, shard)
            return None
        except (OSError, FormatError) as error:
            self.find(name, "damaged", reason_of(error, path), step, shard)
            return None
        if data != text:
            self.find(
                name, "damaged", "its content can be read, but its bytes are not those that were written", step, shard
            )
            return None
        if not sealed:
            self.find(name, "damaged", f"has no {SEAL}: nothing proves that it is as it was written", step, shard)
        return value

    def shaped(self, path: Path, step: str, is_it: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
        """Return a record as `json` does, and None with a finding for one that is whole but another kind of record."""
        entry = self.json(path, step)
        if entry is None or is_it(entry):
            return entry
        self.find(path, "damaged", "whole in itself, but another record than the one that belongs here", step)
        return None


def _as_written(path: Path, data: bytes) -> bytes:
    """Return the bytes that `write_json` makes of what a JSON text says, its seal included."""
    with parsing(path, "holds what no record does"):
        return json_text(parse_json(path, data))


def reason_of(error: Exception, path: Path) -> str:
    """Say in a few words why a file cannot be read."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    return "empty" if path.stat().st_size == 0 else str(error).removeprefix(f"{path}: ")
