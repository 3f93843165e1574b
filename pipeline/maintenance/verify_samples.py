"""Look into every sample of code shards, as the trainer would: what the sha256 of a shard that was badly made does not
tell."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from manifests.files import FormatError
from manifests.findings import Finding
from manifests.regular_files import walk
from manifests.shards import Index, index_path
from manifests.verify import Report

IN_PROCESS = 8
"""Shards up to this number are read here: starting processes takes longer."""


@dataclass(frozen=True)
class Contents:
    """What was read of a shard: samples, what made their codes, the widths of their features, and the first fault."""

    samples: int
    tokenizers: frozenset[str]
    widths: frozenset[int]
    fault: str = ""


def with_samples(root: Path, report: Report, jobs: int = 0) -> Report:
    """Return a report of verify with a finding for each code shard that holds a sample which cannot be trained on.

    Shards that verify has found damaged are not looked into. `jobs`: processes, 0: one per core.
    """
    wrong = {root / finding.path for finding in report.wrong}
    paths = [path for path in _code_shards(root) if not wrong & {path, index_path(path)}]
    if len(paths) <= IN_PROCESS:
        contents = list(map(look_into, paths))
    else:
        with ProcessPoolExecutor(jobs or len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
            contents = list(pool.map(look_into, paths))
    by_path = dict(zip(paths, contents, strict=True))
    findings = [
        Finding(path.relative_to(root).as_posix(), "damaged", shard.fault, "pack")
        for path, shard in by_path.items()
        if shard.fault
    ]
    for kind, of in (("made by", lambda shard: shard.tokenizers), ("features of width", lambda shard: shard.widths)):
        findings += _others(root, by_path, kind, of)
    line = f"samples: {sum(shard.samples for shard in contents):,} in {len(paths):,} code shards looked into"
    return report.also(findings, [line])


def _code_shards(root: Path) -> list[Path]:
    tars = (folder / name for folder, _, files in walk(root) for name in files if name.endswith(".tar"))
    return sorted(path for path in tars if _holds_codes(path))


def _holds_codes(path: Path) -> bool:
    try:
        return any(member.name.endswith(".codes.npy") for member in Index.read(index_path(path)).members[:4])
    except (OSError, FormatError):
        return False


def look_into(path: Path) -> Contents:
    """Read every sample of a shard up to the first that cannot be trained on."""
    from tokenize_shards.samples import LoaderError, Shard, read_samples

    index = Index.read(index_path(path))
    count, tokenizers, widths, fault = 0, set[str](), set[int](), ""
    try:
        for sample in read_samples(Shard(path.resolve(), index.samples, index.bytes, index.sha256)):
            count += 1
            tokenizers.add(str(sample.tokenizer))
            widths.update([] if sample.features is None else [sample.features.shape[1]])
    except (OSError, FormatError, LoaderError) as error:
        fault = str(error).removeprefix(f"shard {path.resolve()}, ").removeprefix(f"shard {path.resolve()}: ")
    return Contents(count, frozenset(tokenizers), frozenset(widths), fault)


def _others(
    root: Path, by_path: dict[Path, Contents], kind: str, of: Callable[[Contents], frozenset[object]]
) -> list[Finding]:
    """Name the shards that hold what the first shard of their folder does not: all of a folder are made alike."""
    first: dict[Path, object] = {}
    findings = []
    for path, shard in by_path.items():
        for value in sorted(of(shard), key=str):
            usual = first.setdefault(path.parent, value)
            if value != usual:
                says = f"{kind} {value}, the first sample of its folder {usual}"
                findings.append(Finding(path.relative_to(root).as_posix(), "damaged", says, "pack"))
    return findings
