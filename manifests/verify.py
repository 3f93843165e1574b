"""Verify a run folder: every file against its record, every record against the others, and nothing that no record
names."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from manifests.aside import ASIDE, UNDER_WAY
from manifests.checksums import READERS, Watch
from manifests.files import TEMPORARY, FormatError, finished, read_json, read_parquet
from manifests.findings import Claim, Finding, Records, Stages, with_cure
from manifests.journal import STEP
from manifests.layout import ADDED, DERIVED, FORMERLY, PARTIAL, SCRATCH, owner
from manifests.lineage import FOLDER, is_journalled, lost
from manifests.manifest import Manifest, read_digests
from manifests.publishing import RUN_TOKEN
from manifests.records import DIGESTS_PATH, read_records, shard_entries
from manifests.regular_files import walk
from manifests.remote_path import snapshot
from manifests.shard_table import files_of, shard_table
from manifests.store import is_remote
from manifests.tombstones import NAME, TOMBSTONES
from manifests.tombstones import STEP as REMOVE
from manifests.transaction import ASKED, NOTES, PENDING, is_noted
from manifests.verify_bytes import measure_claims
from manifests.verify_derived import unrecorded

FREE = ("logs", "train", "recheck", ".lease")
"""Folders whose files no digest covers; checkpoints in train/ are checked by their own records, lists in recheck/ are
made again by `pipeline recheck`; .lease/ says who holds a run in a store."""
IN_PASSING = (UNDER_WAY, PENDING, SCRATCH, PARTIAL)
"""Folders in which a run, or a removal, keeps what it needs until it ends."""
LOOSE = (".lock", RUN_TOKEN, "report.html", "plan.json", "truth.txt", "ATTRIBUTION.md")
"""Files beside the data that commands write over at any time."""


@dataclass(frozen=True)
class Report:
    """What verify found: how much it measured, and every finding in order of paths."""

    files: int
    bytes: int
    findings: tuple[Finding, ...]
    said: tuple[str, ...] = field(default=())

    @property
    def wrong(self) -> list[Finding]:
        """Return the findings that are faults."""
        return [finding for finding in self.findings if finding.wrong]

    def also(self, findings: Iterable[Finding], said: Iterable[str]) -> "Report":
        """Return this report with what a further look has found and said."""
        return replace(self, findings=_in_order((*self.findings, *findings)), said=(*self.said, *said))


def _in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(set(findings), key=lambda finding: (finding.path, finding.kind, finding.says)))


def is_run(root: Path) -> bool:
    """Tell whether a folder is a run folder, damaged or not: it has journals, manifests or a resolved recipe."""
    return any(
        (root / name).exists() for name in ("manifests/journal", "manifests/filter.json", "manifests/input.json")
    ) or ((root / "manifests").is_dir() and (root / "recipe.toml").is_file())


def verify_run(root: Path, stages: Stages, jobs: int = 0, watch: Watch | None = None) -> Report:
    """Verify the run folder at `root`; `jobs` threads measure its files (0: one per core, READERS in a store). Writes
    nothing. In a store each object is read once, and what is there is known from listings."""
    with snapshot():
        return _verified(root, stages, jobs or (READERS if is_remote(root) else 0), watch or Watch())


def _verified(root: Path, stages: Stages, jobs: int, watch: Watch) -> Report:
    records = read_records(root, stages)
    said = [line for stage, steps in stages.items() for line in _stage(records, stage, steps)]
    said += _set_aside(records)
    _digests(records)
    _inputs(records)
    measure_claims(records, jobs, watch)
    _foreign(records, stages)
    _removals(records)
    if is_noted(root):
        records.find(
            f"{PENDING}/{NOTES[-1]}",
            "stale",
            "a removal was interrupted: pipeline remove RUN, or the next run, finishes it",
        )
    if (root / ASKED).exists():
        records.find(
            ASKED, "stale", "a removal was asked for and is not at its end: pipeline remove RUN goes on with it"
        )
    return Report(watch.files, watch.done, _in_order(with_cure(records.findings)), tuple(said))


def _set_aside(records: Records) -> list[str]:
    """Say how much lies aside."""
    sizes = [claim.file.bytes for claim in records.claims.values() if claim.step == ASIDE]
    if not sizes:
        return []
    return [f"{ASIDE}/: {len(sizes)} files, {sum(sizes):,} bytes that fell out of plans: pipeline prune shows them"]


def look_over(root: Path, stages: Stages) -> list[Finding]:
    """Return what is missing, damaged or cut, without reading the files that records speak of: their sizes alone are
    compared.

    Checkpoints are left out.
    """
    with snapshot():
        return _looked_over(root, stages)


def _looked_over(root: Path, stages: Stages) -> list[Finding]:
    records = read_records(root, stages)
    for stage, steps in stages.items():
        _stage(records, stage, steps)
    _inputs(records)
    for name, claim in records.claims.items():
        size = (root / name).stat().st_size if (root / name).exists() else None
        if size is None:
            records.find(name, "missing", f"not there, though {claim.by} names it", claim.step, claim.shard)
        elif claim.file.bytes not in (-1, size):
            records.find(name, "damaged", f"{size:,} bytes, {claim.file.bytes:,} wanted", claim.step, claim.shard)
    found = {
        finding
        for finding in with_cure(records.findings)
        if finding.kind in ("missing", "damaged") and finding.step != "train"
    }
    return sorted(found, key=lambda finding: (finding.path, finding.kind))


def _stage(records: Records, stage: str, steps: Sequence[str]) -> list[str]:
    """Compare a stage's manifest with its journals and parents; return what to say where there is none."""
    name = f"manifests/{stage}.json"
    manifest = records.manifests.get(stage)
    if manifest is None:
        return _without_manifest(records, stage, list(steps))
    added = () if _has_added(records, stage) else ADDED.get(stage, ())
    for step in steps:
        if step not in added:
            _noted(records, step, f"not there, though {name} is")
        _compare(records, manifest, step)
    for entry in manifest.inputs:
        _parent(records, stage, str(entry.get("name")), str(entry.get("digest")))
    return []


def _has_added(records: Records, stage: str) -> bool:
    """Tell whether a stage has left anything of the steps that it has got since: one of before has none of them."""
    manifest, folder = records.manifests.get(stage), records.root / "manifests" / "journal"
    return any(
        records.journal.get(step)
        or (folder / step / STEP).exists()
        or (manifest is not None and files_of(manifest.shards, step).num_rows)
        for step in ADDED.get(stage, ())
    )


def _noted(records: Records, step: str, says: str) -> None:
    """Look for the note of how a step was done."""
    if not (records.root / "manifests" / "journal" / step / STEP).exists():
        records.find(f"manifests/journal/{step}/{STEP}", "missing", says, step)


def _without_manifest(records: Records, stage: str, steps: list[str]) -> list[str]:
    name = f"manifests/{stage}.json"
    if records.lost(stage):
        return []
    children = [
        child
        for child, manifest in records.manifests.items()
        if any(entry.get("name") == name for entry in manifest.inputs)
    ]
    if stage in read_digests(records.root) or children:
        records.find(name, "missing", f"not there, though {children[0] if children else DIGESTS_PATH} names it")
        return []
    done = sum(len(records.journal.get(step, {})) for step in steps)
    begun = [step for step in steps if records.journal.get(step)]
    return [
        f"{stage}: no manifest: "
        + (f"unfinished, {done} shards done in {', '.join(begun)}" if begun else "it has not run")
    ]


def _compare(records: Records, manifest: Manifest, step: str) -> None:
    """Hold a step's entries in the manifest against its journal."""
    journal = records.journal.get(step, {})
    here = shard_table({step: [journal[shard] for shard in sorted(journal)]}).drop_columns("counted")
    if here.equals(files_of(manifest.shards, step).drop_columns("counted")):
        return
    listed: dict[str, set[tuple[str, str, int, int, int]]] = {}
    for shard, *entry in shard_entries(manifest, step):
        listed.setdefault(shard, set()).add(tuple(entry))  # type: ignore[arg-type]
    for shard in sorted(set(listed) - set(journal)):
        name = f"manifests/journal/{step}/{shard}.json"
        if not records.found(name):
            records.find(
                name, "missing", f"not there, though manifests/{manifest.stage}.json lists the shard", step, shard
            )
    others = [
        shard
        for shard, record in journal.items()
        if {(f.path, f.sha256, f.bytes, record.rows_in, record.rows_out) for f in record.files}
        != listed.get(shard, set())
    ]
    if others:
        says = (
            f"lists other files than the journal of {step} for {len(others)} shards, such as {min(others)}: made again"
            " since"
        )
        ends = f"pipeline run --stage {manifest.stage} ends what was begun"
        records.find(f"manifests/{manifest.stage}.json", "stale", f"{says}; {ends}", step)


def _parent(records: Records, stage: str, name: str, digest: str) -> None:
    parent = records.manifests.get(name.removeprefix("manifests/").removesuffix(".json"))
    if name.startswith("manifests/") and parent is not None and parent.digest != digest:
        says = f"made from {name} of digest {digest[:16]}…, which is {parent.digest[:16]}… now"
        records.find(f"manifests/{stage}.json", "stale", f"{says}; pipeline run --stage {stage} brings it up to date")


def _digests(records: Records) -> None:
    """Hold the list of digests against the manifests."""
    if not (records.root / DIGESTS_PATH).exists():
        if records.manifests:
            records.find(DIGESTS_PATH, "missing", "not there, though there are manifests")
        return
    known = read_digests(records.root)
    for stage, manifest in records.manifests.items():
        listed = known.get(stage, {}).get("digest")
        if listed != manifest.digest and not records.found(DIGESTS_PATH):
            records.find(
                DIGESTS_PATH, "stale", f"{stage} has digest {manifest.digest[:16]}…, listed {str(listed)[:16]}…"
            )


def _inputs(records: Records) -> None:
    """Hold the input list against the filter's manifest."""
    name = "manifests/input.json"
    manifest = records.manifests.get("filter")
    path = records.root / name
    if not path.exists():
        if manifest or records.journal.get("select"):
            records.find(name, "missing", "not there, though filter has begun")
        return
    if manifest is None or records.found(name):
        return
    files = {
        (entry.get("name"), entry.get("bytes")) for entry in read_json(path).get("files", []) if not entry.get("fault")
    }
    wanted = {(entry["name"], entry.get("bytes")) for entry in manifest.inputs if "rows" in entry}
    if files != wanted:
        records.find(
            name, "stale", f"names {len(files)} readable files, manifests/filter.json {len(wanted)}, or others"
        )


def _foreign(records: Records, stages: Stages) -> None:
    """Name every file that no record accounts for; an output whose record is lost is told apart from what is not the
    run's."""
    accounted = {*records.claims, *records.known, *LOOSE, TOMBSTONES, ASKED}
    stage_of = {step: stage for stage, steps in stages.items() for step in steps}

    def find(name: str, kind: str, says: str) -> None:
        """Note a file, under the kind that fits what is known of its step."""
        step, shard = owner(name)
        if step in FORMERLY and not (records.journal.get(step) or shard in records.journal.get(FORMERLY[step], {})):
            step = FORMERLY[step]
        if name.startswith("manifests/input/") and records.found("manifests/input.json"):
            kind, says = (
                "unproved",
                "the list of input files, manifests/input.json, is lost: nothing else says what its bytes must be",
            )
        if name.startswith(f"{ASIDE}/") and name.endswith((".parquet", ".tar")):
            kind, says = "leftover", "no record names it: it is not used, and the next run of its step drops it"
        if kind == "foreign" and step in stage_of and shard not in records.journal.get(step, {}):
            kind, says = _unrecorded(records, stage_of[step], step, shard)
        elif kind == "foreign" and step in DERIVED:
            kind, says = unrecorded(records, step, shard)
        records.find(name, kind, says)

    _unlisted(records, stages)
    walk_foreign(records.root, lambda name: name in accounted, find)


def _unlisted(records: Records, stages: Stages) -> None:
    """Where a stage has lost its manifest, name the records that its plans ask for and that are not there."""
    for stage, steps in stages.items():
        if not (records.lost(stage) and stage not in records.manifests):
            continue
        added = () if _has_added(records, stage) else ADDED.get(stage, ())
        for step in (step for step in steps if step not in added):
            _noted(records, step, f"not there, though {stage} has ended")
            for shard in sorted((records.planned(step) or set()) - set(records.journal.get(step, {}))):
                _lost(records, step, shard, f"not there, though the plan of {step} has the shard")


def _lost(records: Records, step: str, shard: str, says: str) -> str:
    """Note that a shard's record is missing, unless it is noted that it is damaged; return its name."""
    record = f"manifests/journal/{step}/{shard}.json"
    if not records.found(record):
        records.find(record, "missing", says, step, shard)
    return record


def _unrecorded(records: Records, stage: str, step: str, shard: str) -> tuple[str, str]:
    """Return (kind, what to say) of an output of a step whose shard has no whole record."""
    record = f"manifests/journal/{step}/{shard}.json"
    shards = records.planned(step)
    if not records.found(record):
        ended = stage in records.manifests
        if shard not in (shards or ()) and (ended or shards is not None):
            return "foreign", "no record names it"
        if not records.unread(step) and (ended or not records.lost(stage)):
            return (
                "leftover",
                f"no record names it yet: pipeline run --stage {stage} makes its shard, or makes it again",
            )
        _lost(records, step, shard, "not there, though its shard's files are")
    return "unproved", f"its record, {record}, is lost: nothing else says what its bytes must be"


def walk_foreign(root: Path, known: Callable[[str], bool], find: Callable[[str, str, str], None]) -> None:
    """Call `find(path, kind, says)` for each file below `root` that is not known; leftovers of dead attempts are told
    apart."""
    for folder, names, files in walk(
        root, lambda error: find(_below(root, error), "damaged", f"cannot be listed ({error.strerror})")
    ):
        here = folder.relative_to(root)
        if here == Path():
            names[:] = [name for name in names if name not in FREE]
        for name in sorted(names):
            if name.startswith(TEMPORARY) or (here == Path() and name in IN_PASSING):
                find(
                    (here / name).as_posix(),
                    "leftover",
                    "left by a run that ended early; the next run sweeps or uses it",
                )
        names[:] = [n for n in names if not n.startswith(TEMPORARY) and not (here == Path() and n in IN_PASSING)]
        for name in sorted(files):
            path = (here / name).as_posix()
            if name.startswith(TEMPORARY):
                find(path, "leftover", "left by an attempt that died; the next run sweeps it")
            elif not known(path):
                find(path, "foreign", "no record names it")


def _below(root: Path, error: OSError) -> str:
    return Path(error.filename).relative_to(root).as_posix()


def _removals(records: Records) -> None:
    """Look for what removals leave: a record each, which its journal names, and the tombstones with theirs."""
    for name in lost(records.root):
        if not records.found(name):
            there = (records.root / name).exists()
            records.find(
                name,
                "damaged" if there else "missing",
                "not as it was written" if there else "not there, though its removal was",
            )
    for path in finished(records.root / "manifests" / FOLDER, "*.json"):
        if is_journalled(path):
            _journalled(records, path.stem, path.relative_to(records.root).as_posix())
    if (records.root / TOMBSTONES).exists():
        _journalled(records, NAME, TOMBSTONES)
        _tombstones(records)
    elif TOMBSTONES not in records.claims and (records.root / "manifests" / FOLDER).is_dir():
        records.find(TOMBSTONES, "missing", "not there, though rows were removed")


def _journalled(records: Records, shard: str, what: str) -> None:
    record = f"manifests/journal/{REMOVE}/{shard}.json"
    if shard not in records.journal.get(REMOVE, {}) and not records.found(record):
        records.find(record, "missing", f"not there, though {what} is", REMOVE, shard)


def _tombstones(records: Records) -> None:
    if TOMBSTONES in records.claims:
        return
    try:
        read_parquet(records.root / TOMBSTONES)
        records.find(TOMBSTONES, "unproved", "can be read, but no record names its sha256")
    except (OSError, FormatError) as error:
        says = str(error).removeprefix(f"{records.root / TOMBSTONES}: ")
        records.find(TOMBSTONES, "damaged", f"cannot be read ({says})")


def claims_of(root: Path, stages: Stages) -> dict[str, Claim]:
    """Return path -> claim of every file that the folder's records name."""
    return read_records(root, stages).claims
