"""Verify a bare folder of shards with their sidecars, as a downloader of the set has it: no journal, no manifest."""

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from manifests.checksums import READERS, Measured, Watch, measure_all, size_of
from manifests.damage import explain, scan
from manifests.files import SEAL, TEMPORARY, FormatError, parse_json, parsing, read_parquet
from manifests.findings import Finding
from manifests.regular_files import read_plain, walk
from manifests.remote_path import snapshot
from manifests.shards import Index, index_path
from manifests.store import is_remote
from manifests.verify import LOOSE, Report, walk_foreign

INDEX, STATS = ".index.json", "_stats.json"
IMPORT_NOTE = "import.json"
"""What `pipeline import` leaves beside the shards that it makes: counts of what it read, dropped and kept."""
PACKED = "index.parquet"
"""Beside shards of codes: one table of where all their samples lie."""
OPTIONAL = {"t5.npy"}
"""Members that a sample may lack though most have them: it has no caption to make features of, or they could not be
used."""


class _Folder:
    """One folder below the root, and what was found in it so far."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.findings: list[Finding] = []
        self.known: set[str] = set()
        self.said: list[str] = []
        self.keys: dict[Path, list[pa.Array]] = defaultdict(list)

    def find(self, path: Path | str, kind: str, says: str) -> None:
        name = path if isinstance(path, str) else path.relative_to(self.root).as_posix()
        self.findings.append(Finding(name, kind, says, "bare", Path(name).name.split(".")[0]))

    def know(self, path: Path) -> None:
        self.known.add(path.relative_to(self.root).as_posix())


def is_bare(root: Path) -> bool:
    """Tell whether a folder holds shards or indexes of shards, at any depth."""
    return any(name.endswith((".tar", INDEX)) for _, _, files in walk(root) for name in files)


def verify_folder(root: Path, jobs: int = 0, watch: Watch | None = None) -> Report:
    """Verify every shard below `root` against the sidecars beside it. Writes nothing."""
    with snapshot():
        return _verified(root, jobs or (READERS if is_remote(root) else 0), watch or Watch())


def _verified(root: Path, jobs: int, watch: Watch) -> Report:
    folder = _Folder(root)
    tars = _files(root, ".tar")
    indexes = {path: _index(folder, path) for path in _files(root, INDEX)}
    for path in tars:
        folder.know(path)
    watch.total += sum(map(size_of, tars))
    for path, measured in measure_all(tars, jobs, watch):
        _shard(folder, path, measured, indexes)
    for path in sorted(indexes):
        if not _tar_of(path).is_file():
            folder.find(_tar_of(path), "missing", f"not there, though its index {path.name} is")
    _gaps(folder, [*tars, *map(_tar_of, indexes)])
    _pairs_without_tar(folder)
    _repeated(folder)
    walk_foreign(
        root,
        lambda name: name in folder.known or name in LOOSE or Path(name).name in (IMPORT_NOTE, PACKED),
        folder.find,
    )
    findings = sorted(set(folder.findings), key=lambda finding: (finding.path, finding.kind, finding.says))
    return Report(watch.files + len(indexes), watch.done, tuple(findings), tuple(folder.said))


def _files(root: Path, ending: str) -> list[Path]:
    found = (folder / name for folder, _, files in walk(root) for name in files if name.endswith(ending))
    paths = [path for path in found if not any(part.startswith(TEMPORARY) for part in path.relative_to(root).parts)]
    return sorted(path for path in paths if path.is_file())


def _tar_of(index: Path) -> Path:
    return index.with_name(index.name.removesuffix(INDEX) + ".tar")


def _index(folder: _Folder, path: Path) -> Index | None:
    """Read an index and check it against itself."""
    folder.know(path)
    try:
        index = Index.read(path)
    except (OSError, FormatError) as error:
        folder.find(path, "damaged", "empty" if path.stat().st_size == 0 else str(error).removeprefix(f"{path}: "))
        return None
    if not index.sealed:
        folder.find(path, "damaged", f"has no {SEAL}: nothing proves that it is as it was written")
    for fault in _index_faults(index, _tar_of(path).name):
        folder.find(path, "damaged", fault)
    numbers = [
        int(hashlib.blake2b(key.encode(), digest_size=7).hexdigest(), 16)
        for key in {m.key: None for m in index.members}
    ]
    folder.keys[path.parent].append(pa.array(numbers, pa.int64()))
    return index


def _index_faults(index: Index, tar: str) -> list[str]:
    faults = [] if index.shard == tar else [f"the index of {index.shard}, not of {tar}"]
    twice = [name for name, count in Counter(member.name for member in index.members).items() if count > 1]
    if twice:
        faults.append(f"member {twice[0]} stands in it twice")
    parts: dict[str, set[str]] = defaultdict(set)
    for member in index.members:
        parts[member.key].add(member.name.partition(".")[2])
    if len(parts) != index.samples:
        faults.append(f"{len(parts)} samples in its members, {index.samples} in its count")
    usual = set.intersection(*parts.values()) if parts else set()
    common = {
        name
        for name, count in Counter(part for found in parts.values() for part in found).items()
        if count > len(parts) / 2
    }
    for key, found in parts.items():
        if lost := common - found - usual - OPTIONAL:
            faults.append(f"sample {key} lacks {', '.join(sorted(lost))}, which the others have")
    return faults[:5]


def _shard(folder: _Folder, path: Path, got: Measured, indexes: dict[Path, Index | None]) -> None:
    place = index_path(path)
    if place in indexes:
        index = indexes[place]
        if index is not None and (got.sha256, got.bytes) != (index.sha256, index.bytes):
            folder.find(path, "damaged", explain(path, Measured(index.sha256, index.bytes), got, index))
        elif index is None:
            folder.find(path, "unproved", "its index is damaged: " + (_loose(path) or "the tar is whole in itself"))
        return
    if path.with_suffix(".parquet").is_file():
        _pairs(folder, path, got)
        return
    fault = _loose(path)
    folder.find(
        path,
        "damaged" if fault else "unproved",
        fault or "the tar is whole in itself, but nothing says what its members must be",
    )
    if (stats := path.with_name(path.stem + STATS)).exists():  # pairs, which have a table and no index
        folder.know(stats)
        place = path.with_suffix(".parquet")
    folder.find(place, "missing", f"not there, though {path.name} is")


def _loose(path: Path) -> str:
    """Return the first fault of a tar that nothing describes, or nothing."""
    if path.stat().st_size == 0:
        return "empty"
    pieces = list(scan(path))
    if not pieces:
        return "no member in it: zeros alone"
    return next((piece.fault for piece in pieces if piece.fault), "")


def _pairs(folder: _Folder, path: Path, got: Measured) -> None:
    """Check a shard of pairs member by member against the table beside it: the table holds the sha256 of each
    picture."""
    table = path.with_suffix(".parquet")
    stats = path.with_name(f"{path.stem}{STATS}")
    folder.know(table)
    folder.know(stats)
    try:
        rows, wanted = _pair_rows(table)
    except (OSError, FormatError) as error:
        says = str(error).removeprefix(f"{table}: ")
        folder.find(table, "damaged", f"cannot be read as a table of pairs ({says})")
        return
    _stats(folder, stats, len(rows), len(wanted))
    if got.bytes == 0:
        folder.find(path, "damaged", "empty")
        return
    faults = list(_pair_faults(path, wanted))
    if faults:
        folder.find(
            path, "damaged", "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        )
    line = (
        "pairs: checked by the sha256 of each picture and the values in their table; of rows without a picture nothing"
        " can be proved"
    )
    if line not in folder.said:
        folder.said.append(line)


def _pair_rows(path: Path) -> tuple[list[dict[str, object]], dict[str, dict[str, object]]]:
    """Return the rows of a table of pairs, and key -> row of those with a picture."""
    rows = read_parquet(path).to_pylist()
    with parsing(path, "not a table of pairs"):
        return rows, {str(row["key"]): row for row in rows if row["status"] == "success"}


def _pair_faults(path: Path, wanted: dict[str, dict[str, object]]) -> list[str]:
    faults, seen = [], Counter[str]()
    for piece in scan(path):
        if piece.fault:
            faults.append(piece.fault)
            continue
        key, _, part = piece.name.partition(".")
        seen[piece.name] += 1
        row = wanted.get(key)
        if row is None:
            faults.append(f"member {piece.name} is not in its table")
        elif part == "jpg" and row.get("sha256") and hashlib.sha256(piece.data).hexdigest() != row["sha256"]:
            faults.append(f"member {piece.name} at byte {piece.offset + 512}: not the recorded sha256")
        elif part == "txt" and piece.data.decode("utf-8", "replace") != (row.get("caption") or ""):
            faults.append(f"member {piece.name} at byte {piece.offset + 512}: not the caption of its table")
        elif part == "json" and not _agrees(piece.data, row):
            faults.append(f"member {piece.name} at byte {piece.offset + 512}: not the row of its table")
    missing = [f"{key}.{part}" for key in wanted for part in ("jpg", "txt", "json") if not seen[f"{key}.{part}"]]
    twice = [name for name, count in seen.items() if count > 1]
    return [
        *faults,
        *([f"{len(missing)} members are not in it, such as {missing[0]}"] if missing else []),
        *(f"member {name} stands in it twice" for name in twice[:3]),
    ]


def _agrees(data: bytes, row: dict[str, object]) -> bool:
    try:
        note = parse_json("a member", data)
    except FormatError:
        return False
    return isinstance(note, dict) and all(value == row[name] for name, value in note.items() if name in row)


def _stats(folder: _Folder, path: Path, count: int, successes: int) -> None:
    if not path.exists():
        folder.find(path, "missing", "not there, though its shard is")
        return
    try:
        said = parse_json(path, read_plain(path))
        with parsing(path, "lacks a count"):
            rows, pictures = said["count"], said["successes"]
    except (OSError, FormatError) as error:
        says = str(error).removeprefix(f"{path}: ")
        folder.find(path, "damaged", "empty" if path.stat().st_size == 0 else f"not a shard's statistics ({says})")
        return
    if (rows, pictures) != (count, successes):
        folder.find(path, "damaged", f"{rows} rows and {pictures} pictures, its table has {count} and {successes}")


def _pairs_without_tar(folder: _Folder) -> None:
    """Tables and statistics of pairs whose tar went missing."""
    for path in _files(folder.root, STATS):
        tar = path.with_name(path.name.removesuffix(STATS) + ".tar")
        if not tar.exists():
            folder.know(path)
            folder.know(tar.with_suffix(".parquet"))
            folder.find(tar, "missing", f"not there, though {path.name} is")


def _gaps(folder: _Folder, tars: list[Path]) -> None:
    """Shards are numbered from 0 without gaps: a number that is not there went missing with its index."""
    numbers: dict[Path, dict[int, int]] = defaultdict(dict)
    for path in tars:
        if path.stem.isdigit():
            numbers[path.parent][int(path.stem)] = len(path.stem)
    for place, found in sorted(numbers.items()):
        for number in sorted(set(range(max(found))) - set(found))[:20]:
            lost = place / f"{number:0{max(found.values())}d}.tar"
            folder.find(lost, "missing", "its number is left out: neither shard nor index is there")


def _repeated(folder: _Folder) -> None:
    """A sample may stand once in a folder of shards."""
    for place, arrays in folder.keys.items():
        numbers = pa.concat_arrays(arrays)
        extra = len(numbers) - len(pc.unique(numbers))
        if extra:
            name = place.relative_to(folder.root).as_posix()
            folder.find(name, "damaged", f"{extra} samples stand in more than one shard or twice in one")
