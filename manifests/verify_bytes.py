"""Hold the bytes of a run's files against what its records say of them."""

from collections.abc import Container, Iterator, Mapping
from operator import itemgetter
from pathlib import Path

from manifests.checksums import Measured, Watch, measure_all
from manifests.damage import explain
from manifests.files import FormatError, read_parquet
from manifests.findings import Records
from manifests.journal import FileRecord
from manifests.shards import Index, index_path


def measure_claims(records: Records, jobs: int, watch: Watch) -> None:
    """Measure every claimed file, and explain those that differ."""
    watch.total += sum(max(claim.file.bytes, 0) for claim in records.claims.values())
    damaged = {
        path: got
        for path, got in measure_all(_claimed(records), jobs, watch)
        if _differs(records.claims[path.relative_to(records.root).as_posix()].file, got)
    }
    for path, got in damaged.items():
        claim = records.claims[path.relative_to(records.root).as_posix()]
        wanted = Measured(claim.file.sha256, claim.file.bytes if claim.file.bytes >= 0 else got.bytes)
        index, pictures = _sidecars(path, damaged)
        records.find(path, "damaged", explain(path, wanted, got, index, pictures), claim.step, claim.shard)


def _claimed(records: Records) -> Iterator[Path]:
    """Yield the claimed files that are there; say which are not."""
    for name, claim in sorted(records.claims.items(), key=itemgetter(0)):
        path = records.root / name
        if path.exists():
            yield path
        else:
            records.find(name, "missing", f"not there, though {claim.by} names it", claim.step, claim.shard)


def _differs(wanted: FileRecord, got: Measured) -> bool:
    return bool(got.error) or got.sha256 != wanted.sha256 or wanted.bytes not in (-1, got.bytes)


def _sidecars(path: Path, damaged: Container[Path]) -> tuple[Index | None, Mapping[str, str] | None]:
    """Return what a damaged tar's whole sidecars say of its members."""
    if path.suffix != ".tar":
        return None, None
    table = path.with_suffix(".parquet")
    try:
        if index_path(path).exists() and index_path(path) not in damaged:
            return Index.read(index_path(path)), None
        if table.is_file() and table not in damaged:
            rows = read_parquet(table, ["key", "sha256"]).to_pylist()
            return None, {f"{row['key']}.jpg": row["sha256"] for row in rows if row["sha256"]}
    except (OSError, FormatError):
        pass
    return None, None
