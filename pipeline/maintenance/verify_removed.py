"""Prove that what was removed is gone: no table, tar or record of a run says its uid, its URL or its host."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from filters.tombstones import Wanted
from manifests.checksums import READERS
from manifests.files import TEMPORARY, FormatError, open_table, parse_json, read_table
from manifests.findings import Finding
from manifests.regular_files import walk
from manifests.shards import member_places
from manifests.store import is_remote, local_copy
from manifests.tombstones import BY_TOMBSTONE, TOMBSTONES, read_tombstones
from manifests.verify import Report
from pipeline.execution.redaction import HEX, HOSTS

NOT_READ = ("train",)
"""What a model has learned cannot be taken out of its checkpoints; everything else is looked at."""
YOURS = ("recipe.toml", "manifests/recipe.json", "manifests/input.json")
"""What the user wrote, recipe and names of input files: said to name something removed, and no fault."""
TEXTS = (".json", ".jsonl", ".html", ".log", ".txt", ".toml", ".csv")
URL = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>\\]+")
QUOTED = re.compile(rb'"((?:[^"\\\n]|\\.)+)"')


def with_absence(root: Path, report: Report, jobs: int = 0) -> Report:
    """Return a report of verify with a finding for each file that still holds something removed. Nothing is read
    without tombstones."""
    try:
        removed = Wanted(read_tombstones(root))
    except (OSError, FormatError):
        return report  # verify has named the damage
    if not removed.tombstones:
        return report
    paths = [path for path in _paths(root) if path != root / TOMBSTONES]
    threads = jobs or (READERS if is_remote(root) else len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        says_of = list(pool.map(lambda path: _look(root, path, removed), paths))
    findings = [
        Finding(path.relative_to(root).as_posix(), "removed", f"holds {'; '.join(says)}, which was removed")
        for path, says in zip(paths, says_of, strict=True)
        if says and path.relative_to(root).as_posix() not in YOURS
    ]
    yours = [name for name in YOURS if (root / name) in paths and says_of[paths.index(root / name)]]
    uids = len(removed.hexes) + len(removed.tombstones.uid_digests)
    line = (
        f"removed: {uids:,} uids, {len(paths):,} files searched for them, their URLs and hosts: in"
        f" {len(findings)} of them"
    )
    mentions = [f"{name} names a removed URL or host: it is yours, and stays as it is" for name in yours]
    return report.also(findings, [line, *_returned(root), *mentions])


def _returned(root: Path) -> list[str]:
    """Say how many rows have brought a removed picture back under another URL: they are dropped, and not taken out."""
    try:
        marks = read_table(root / "ledger" / "marks.parquet", ["uid", "detail"])
    except (OSError, FormatError):
        return []
    count = pc.count_distinct(marks["uid"].filter(pc.starts_with(marks["detail"], BY_TOMBSTONE))).as_py()
    how = "dropped, but their pictures are in pairs/ until pipeline remove is given the same selectors again"
    return [f"{count} rows that came later have a removed picture: {how}"] if count else []


def _paths(root: Path) -> Iterator[Path]:
    listed = is_remote(root)  # a store lists objects alone
    for here, names, files in walk(root):
        names[:] = sorted(n for n in names if not n.startswith(TEMPORARY) and not (here == root and n in NOT_READ))
        paths = (here / name for name in sorted(files) if not name.startswith(TEMPORARY))
        yield from (path for path in paths if listed or path.is_file())


def _look(root: Path, path: Path, removed: Wanted) -> list[str]:
    """Return what a file holds that it must not; nothing of one that cannot be read: verify has named it."""
    final = path.parent == root / "ledger" / "final"
    try:
        if path.suffix == ".parquet":
            return list(_in_table(path, removed, final))
        if path.suffix == ".tar":
            return list(_in_tar(path, removed))
        return list(_in_text(path, removed)) if path.suffix in TEXTS else []
    except (OSError, FormatError):
        return []


def _in_table(path: Path, removed: Wanted, final: bool) -> Iterator[str]:
    """Look at the decoded columns: 16-byte ones, texts of 32 digits, URLs. `final`: the ledger that may say the uid."""
    with open_table(path) as file:
        fields = [field for field in file.schema_arrow if not (final and field.name == "uid")]
        for field in fields:
            of_uid = field.type == pa.binary(16) or field.name in ("uid", "key")
            of_url = field.name == "url" and removed.has_urls
            if not of_uid and not of_url:
                continue
            count = sum(_count(batch.column(0), removed, of_url) for batch in file.iter_batches(columns=[field.name]))
            if count:
                yield f"{count} {'URLs' if of_url else 'uids'} in column {field.name}"


def _count(column: pa.Array, removed: Wanted, of_url: bool) -> int:
    return removed.urls(column) if of_url else removed.uids(column)


def _in_tar(path: Path, removed: Wanted) -> Iterator[str]:
    urls: list[str] = []
    with local_copy(path) as local, open(local, "rb") as file:
        for name, offset, length in member_places(local):
            if removed.names(name.partition(".")[0]):
                yield f"member {name}"
            if removed.has_urls and name.endswith(".json"):
                urls += _urls(parse_json(path, os.pread(file.fileno(), length, offset)))
    if urls and (count := removed.urls(pa.array(urls, pa.string()))):
        yield f"{count} URLs in its members"


def _urls(note: Any) -> list[str]:
    return [note["url"]] if isinstance(note, dict) and isinstance(note.get("url"), str) else []


def _in_text(path: Path, removed: Wanted) -> Iterator[str]:
    data = path.read_bytes()
    if count := _hexes(data.splitlines(), removed):
        yield f"{count} uids"
    if removed.has_urls and (count := removed.urls(pa.array(sorted(_urls_of(data)), pa.string()))):
        yield f"{count} URLs"
    elif not path.name.endswith(".index.json") and (
        count := removed.hosts(HOSTS.findall(data.decode("utf-8", "replace").lower()))
    ):
        yield f"{count} hosts"


def _urls_of(data: bytes) -> set[str]:
    """Return what may be a URL, or the path of a local picture, in a text: with and without JSON's escapes and what
    ends a sentence."""
    urls = {match.decode("utf-8", "replace") for match in URL.findall(data)}
    for match in QUOTED.findall(data):
        text = match.decode("utf-8", "replace")
        try:
            urls.add(json.loads(f'"{text}"') if "\\" in text else text)
        except json.JSONDecodeError:
            continue
    return urls | {url.rstrip(".,;:)]}") for url in urls}


def _hexes(lines: Iterable[bytes], removed: Wanted) -> int:
    return sum(removed.names(match.decode()) for line in lines for match in HEX.findall(line.lower()))
