"""Hold the packed index of each tier against its shards: one of other shards leads to samples that are no more."""

from collections.abc import Iterator
from pathlib import Path

from manifests.files import FormatError
from manifests.findings import Finding
from manifests.regular_files import walk
from manifests.shards import index_counts, index_path
from manifests.verify import Report
from pipeline.steps.index import packed_shards
from tokenize_shards.packed_index import NAME, PackedIndex, unlike

Wanted = dict[str, tuple[int, str]]
"""Shard -> its samples and its sha256."""
AGAIN = "pipeline run --stage pretokenize makes it anew"


def with_run_indexes(root: Path, report: Report, rows: bool = False) -> Report:
    """Return a report of a run with a finding for each packed index that is not of the shards that the records name.
    `rows`: look at each of its rows too, beside the indexes of the shards."""
    wrong = {finding.path for finding in report.wrong}
    if any(name.startswith("manifests/journal/pack") for name in wrong):
        return report  # what the shards are to be is damaged itself
    findings = []
    for tier, records in packed_shards(root).items():
        name = f"codes/{tier}/{NAME}"
        files = ((record.rows_out, file) for record in records for file in record.files[:1])
        wanted = {Path(file.path).name: (samples, file.sha256) for samples, file in files}
        whole = rows and not any(path.startswith(f"codes/{tier}/") for path in wrong)
        if name not in wrong and (root / name).exists() and (says := _fault(root / name, wanted, whole)):
            findings.append(Finding(name, "stale", f"{says}; {AGAIN}", "index", f"{tier}-00000"))
    return report.also(findings, [])


def with_bare_indexes(root: Path, report: Report) -> Report:
    """Return a report of a bare folder with a finding for each packed index that is not of the shards beside it, row
    by row. Where a shard is damaged, its folder's is not looked at."""
    wrong = {(root / finding.path).parent for finding in report.wrong}
    findings = []
    for path in _below(root):
        if path.parent in wrong:
            continue
        counts = {tar.name: index_counts(index_path(tar)) for tar in sorted(path.parent.glob("*.tar"))}
        wanted = {name: (samples, sha256) for name, (samples, _, sha256) in counts.items()}
        if says := _fault(path, wanted, True):
            findings.append(Finding(path.relative_to(root).as_posix(), "damaged", says, "bare", "index"))
    return report.also(findings, [])


def _below(root: Path) -> Iterator[Path]:
    yield from sorted(folder / name for folder, _, files in walk(root) for name in files if name == NAME)


def _fault(path: Path, wanted: Wanted, rows: bool) -> str:
    """Return what is wrong with a packed index, or nothing."""
    try:
        index = PackedIndex(path)
        got = {shard.path.name: (shard.samples, shard.sha256) for shard in index.shards}
        odd = sorted(name for name in {*got, *wanted} if got.get(name) != wanted.get(name))
        if odd:
            return f"it is not of the shards that are there: it has {len(odd)} otherwise, such as {odd[0]}"
        return unlike(index) if rows else ""
    except (OSError, FormatError) as error:
        return str(error).removeprefix(f"{path}: ")
