"""Write a run's damaged records again from one another: recipe, list of inputs, manifests, their digests, and what
removals left; say what only a copy of the run can bring back."""

import re
from typing import Any

import tomli_w

from manifests.checksums import sha256_file
from manifests.files import FormatError, read_json, write_bytes, write_json
from manifests.journal import ConservationError, records_of
from manifests.lineage import FOLDER, note_removal, removals
from manifests.manifest import Manifest, read_digests
from manifests.reasons import UnknownReason
from manifests.recipe_file import headed, read_headed
from manifests.records import DIGESTS_PATH
from manifests.tombstones import NAME, STEP, TOMBSTONES, note_tombstones
from pipeline.execution.run_folder import COPY, RECIPE
from pipeline.inputs.convert import with_tables
from pipeline.inputs.files import InputFile, look_at_inputs
from pipeline.inputs.input_list import register_files, registered_files
from pipeline.maintenance.repair.session import UNDONE, Repair, same_settings
from pipeline.maintenance.repair.shards import settle_doubts
from pipeline.recipes.load import parse_recipe
from pipeline.stages.manifest import write_manifest
from pipeline.stages.registry import STAGES

INPUT = "manifests/input.json"
TABLES = "manifests/input/"
NOWHERE = "is noted nowhere else: restore it from a copy of the run"


def mend_recipe(work: Repair) -> None:
    """Write the recipe again from its copy, or the copy from it."""
    if work.needs(RECIPE) and (work.copy / COPY).exists():
        write_bytes(work.copy / RECIPE, headed(tomli_w.dumps(read_json(work.copy / COPY)["recipe"]).encode()))
        work.give(RECIPE, f"from {COPY}")
    if work.needs(COPY) and (work.copy / RECIPE).exists():
        write_json(work.copy / COPY, {"recipe": _in_order(read_headed(work.copy / RECIPE))}, sealed=True)
        work.give(COPY, f"from {RECIPE}")
    work.leave([RECIPE, COPY], "it and its copy are lost both: pipeline run, with your recipe, writes them anew")


def _in_order(values: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe's values in the order in which a run writes them: TOML puts tables last."""
    plain = parse_recipe(values).plain()
    return plain if plain == values else values


def mend_removals(work: Repair) -> None:
    """Journal again what a removal left: its record is sealed, and says the sha256 of the tombstones."""
    for finding in [finding for finding in work.open() if finding.path.startswith(f"manifests/journal/{STEP}/")]:
        if finding.shard == NAME:
            _mend_tombstones(work, finding.path)
        elif (path := work.copy / "manifests" / FOLDER / f"{finding.shard}.json").exists():
            note_removal(work.copy, path)
            work.give(finding.path, f"from manifests/{FOLDER}/{finding.shard}.json")
    names = [finding.path for finding in work.open()]
    work.leave(
        [name for name in names if name.startswith(f"manifests/{FOLDER}/")], f"what the removal changed {NOWHERE}"
    )
    work.leave([TOMBSTONES], f"what was removed {NOWHERE}")


def _mend_tombstones(work: Repair, record: str) -> None:
    said = [entry["tombstones_sha256"] for entry in removals(work.copy) if "tombstones_sha256" in entry]
    if TOMBSTONES in work.found or not said or sha256_file(work.copy / TOMBSTONES) != said[-1]:
        work.leave([record], f"nothing proves that {TOMBSTONES} is as it was; restore both from a copy of the run")
        return
    note_tombstones(work.copy)
    work.give(record, f"from {TOMBSTONES}, as the last removal's record proves")


def mend_inputs(work: Repair) -> None:
    """Read the input again, and take the list of its files, and the tables made of them, where they are what filter
    recorded."""
    names = [finding.path for finding in work.open() if finding.path == INPUT or finding.path.startswith(TABLES)]
    if not names:
        return
    listed = {} if INPUT in names else {file.made[0]: file.made[1] for file in registered_files(work.copy) if file.made}
    tables = [path.relative_to(work.copy).as_posix() for path in (work.copy / TABLES).glob("*.parquet")]
    for path in tables if INPUT in names else ():
        (work.copy / path).unlink()  # nothing proves it now: it is made again
    try:
        files = with_tables(work.recipe, look_at_inputs(work.recipe))
    except UNDONE as error:
        work.leave(names, f"the input cannot be read again: {work.line(error)}")
        work.restore([*tables, *names])
        return
    for name in names:
        if name == INPUT:
            _take_list(work, files)
        elif (work.copy / name).exists() and sha256_file(work.copy / name) == listed.get(name):
            work.give(name, "from the input file")
        else:
            work.leave([name], "the input, read again, does not give it")
    work.restore([*tables, *names])


def _take_list(work: Repair, files: list[InputFile]) -> None:
    manifest = work.manifests.get("filter")
    expected = None if manifest is None else [entry for entry in manifest.inputs if "rows" in entry]
    if expected is not None and [file.record() for file in files if not file.fault] != expected:
        work.leave(
            [INPUT],
            f"the input is not what it was: got {len(files)} files, manifests/filter.json names {len(expected)} or"
            " others",
        )
        return
    register_files(work.copy, files)
    step = STAGES["filter"][0](work.recipe, work.copy, work.runtime)
    keys = {unit.key for unit in step.units()}
    if others := [record.shard for record in records_of(work.copy, step.name) if record.key not in keys]:
        work.leave([INPUT], f"the input, read again, is not what shard {others[0]} of {step.name} was made from")
        return
    work.give(INPUT, "from the input files")
    for file in files:
        if file.made and work.sha256(file.made[0]) != file.made[1]:
            work.give(file.made[0], "from the input file")


def mend_manifest(work: Repair, stage: str) -> None:
    """Put a damaged manifest together again from whole journals, and take it when its digest is the recorded one.

    That digest proves shards too of which no record was left.
    """
    name, table = f"manifests/{stage}.json", f"manifests/{stage}.parquet"
    expected, sure = _digest_of(work, stage)
    manifest = _put_together(work, stage, name) if work.needs(name) or work.needs(table) else None
    proved = manifest is not None and manifest.digest == expected
    if manifest is not None and not proved and (sure or any(doubt.stage == stage for doubt in work.doubts)):
        what = f"{expected[:16]}… wanted" if expected else "and no record is left that says what it was"
        work.leave(
            [name, table],
            f"put together again its digest is {manifest.digest[:16]}…, {what}; pipeline run --stage {stage} writes it"
            " anew",
        )
        work.restore([name, table])
        manifest = None
    settle_doubts(work, stage, f"as the digest of {name} proves" if proved else "")
    if manifest is not None:
        how = "from the journals" + ("" if proved else "; no record is left that says what its digest was")
        for path in (table, name):
            if work.needs(path) or work.sha256(path) != sha256_file(work.copy / path):
                work.give(path, how)
        work.manifests[stage] = manifest


def _put_together(work: Repair, stage: str, name: str) -> Manifest | None:
    """Write the manifest in the copy, or leave it and return None."""
    table = f"manifests/{stage}.parquet"
    steps = [step(work.recipe, work.copy, work.runtime) for step in STAGES[stage]]
    if lost := [
        path for path in work.left if any(path.startswith(f"manifests/journal/{step.name}/") for step in steps)
    ]:
        work.leave([name, table], f"{lost[0]} could not be repaired")
        return None
    try:
        for step in steps:
            same_settings(step)
        return write_manifest(work.recipe, stage, steps)
    except (ConservationError, UnknownReason, *UNDONE) as error:
        work.leave([name, table], f"it cannot be put together again: {work.line(error)}")
        return None


def _digest_of(work: Repair, stage: str) -> tuple[str, bool]:
    """Return what a stage's digest was, and whether that is sure.

    It stands in the list of digests and in a later stage's manifest; what is left of the manifest itself may be damaged
    there too.
    """
    listed = {} if DIGESTS_PATH in work.found else read_digests(work.root)
    if stage in listed:
        return str(listed[stage]["digest"]), True
    for manifest in work.manifests.values():
        for entry in manifest.inputs:
            if entry.get("name") == f"manifests/{stage}.json":
                return str(entry["digest"]), True
    try:
        match = re.search(rb'"digest": "([0-9a-f]{64})"', (work.root / "manifests" / f"{stage}.json").read_bytes())
    except OSError:
        return "", False
    return match[1].decode() if match else "", False


def mend_digests(work: Repair) -> None:
    """List the digests again, from whole manifests."""
    if DIGESTS_PATH not in work.found:
        return
    entries = {}
    for stage in sorted(STAGES):
        path = work.root / "manifests" / f"{stage}.json"
        try:
            entries[stage] = {"digest": Manifest.read(path).digest, "sha256": sha256_file(path)}
        except (OSError, FormatError):
            continue
    write_json(work.copy / DIGESTS_PATH, {"stages": entries}, sealed=True)
    work.give(DIGESTS_PATH, "from the manifests")
