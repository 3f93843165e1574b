"""Files against the records that claim them."""

from pathlib import Path

from manifests.checksums import Watch, sha256_file
from manifests.findings import Claim, Records
from manifests.journal import FileRecord
from manifests.verify_bytes import measure_claims


def claimed(root: Path, name: str, data: bytes, size: int | None = None) -> Claim:
    (root / name).write_bytes(data)
    return Claim(
        FileRecord(name, sha256_file(root / name), len(data) if size is None else size), "its journal", "s", "1"
    )


def found_in(records: Records) -> dict[str, str]:
    return {finding.path: finding.kind for finding in records.findings}


def test_whole_files_are_counted_and_not_found_fault_with(tmp_path: Path) -> None:
    claims = {"a": claimed(tmp_path, "a", b"abc"), "b": claimed(tmp_path, "b", b"", -1)}
    records, watch = Records(tmp_path, claims=claims), Watch()
    measure_claims(records, 2, watch)
    assert (found_in(records), watch.total, watch.done, watch.files) == ({}, 3, 3, 2)


def test_a_file_that_is_gone_another_or_cut_is_named_with_its_shard(tmp_path: Path) -> None:
    claims = {name: claimed(tmp_path, name, name.encode() * 9) for name in ("gone", "other", "cut", "whole")}
    (tmp_path / "gone").unlink()
    (tmp_path / "other").write_bytes(b"OTHER" * 9)
    (tmp_path / "cut").write_bytes(b"cut")
    records = Records(tmp_path, claims=claims)
    measure_claims(records, 1, Watch())
    assert found_in(records) == {"gone": "missing", "other": "damaged", "cut": "damaged"}
    assert {(finding.step, finding.shard) for finding in records.findings} == {("s", "1")}
