"""A bare folder of code shards, as a downloader has it: sidecars that are lost or another's, and tars that are
none."""

import gzip
import io
import shutil
import tarfile

import pytest
import webdataset

from manifests.files import FormatError, read_json, write_json
from manifests.shards import Index, index_path, write_shard
from manifests.verify_shards import verify_folder
from tests.support.code_shards import row_of, tokenizer, write_codes
from tokenize_shards.samples import sample_parts


@pytest.fixture
def bare(tmp_path):
    write_codes(tmp_path, (3, 4, 2))
    return tmp_path / "codes" / "pretrain"


def found(folder):
    return {(finding.path, finding.kind) for finding in verify_folder(folder, 1).findings}


def append(path):
    """Add a member behind those of the index, as tar itself does."""
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("more.json")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"{}"))


def rewrite(path, seal=True, **changes):
    entry = read_json(path)
    del entry["format"]
    write_json(path, {**entry, **changes}, sealed=seal)


def swap(first, second):
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


TAR, INDEX = "00001.tar", "00001.index.json"
CASES = {
    "no sidecar": (lambda d: (d / INDEX).unlink(), {(INDEX, "missing"), (TAR, "unproved")}),
    "another's sidecar": (
        lambda d: shutil.copy(d / "00000.index.json", d / INDEX),
        {(".", "damaged"), (INDEX, "damaged"), (TAR, "damaged")},
    ),
    "tars swapped": (lambda d: swap(d / TAR, d / "00000.tar"), {(TAR, "damaged"), ("00000.tar", "damaged")}),
    "a member more": (lambda d: append(d / TAR), {(TAR, "damaged")}),
    "no tar": (lambda d: (d / TAR).unlink(), {(TAR, "missing")}),
    "a packed tar": (lambda d: (d / TAR).write_bytes(gzip.compress((d / TAR).read_bytes())), {(TAR, "damaged")}),
    "a packed tar beside": (lambda d: (d / "00003.tar.gz").write_bytes(b"?"), {("00003.tar.gz", "foreign")}),
    "no seal": (lambda d: rewrite(d / INDEX, seal=False), {(INDEX, "damaged")}),
    "another count": (lambda d: rewrite(d / INDEX, samples=9), {(INDEX, "damaged")}),
    "a member before the tar": (
        lambda d: rewrite(d / INDEX, members=[["a.json", -5, 2, 0]]),
        {(INDEX, "damaged"), (TAR, "unproved")},
    ),
    "a member behind the tar": (
        lambda d: rewrite(d / INDEX, members=[["a.json", 512, 10**14, 0]]),
        {(INDEX, "damaged"), (TAR, "unproved")},
    ),
    "a name too long": (
        lambda d: rewrite(d / INDEX, members=[["a" * 101, 512, 2, 0]]),
        {(INDEX, "damaged"), (TAR, "unproved")},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_sidecars_and_tars_that_do_not_belong_together(bare, case):
    change, wanted = CASES[case]
    assert found(bare) == set()
    change(bare)
    assert found(bare) == wanted


def test_a_tar_with_two_samples_of_one_key_and_one_of_another_hand(bare):
    parts = sample_parts(row_of(50), "pretrain", tokenizer(), "parent")
    write_shard(bare / "00003.tar", [("a", parts), ("b", parts), ("a", parts)], index=True)
    assert found(bare) == {("00003.index.json", "damaged")}
    index_path(bare / "00003.tar").unlink()
    assert [sample["__key__"] for sample in webdataset.WebDataset([str(bare / "00000.tar")], shardshuffle=False)] != []
    assert found(bare) == {("00003.index.json", "missing"), ("00003.tar", "unproved")}


def test_an_index_whose_members_lie_nowhere_is_refused_by_every_reader(bare):
    rewrite(bare / INDEX, members=[["a.json", 1024, 2, 0]])
    with pytest.raises(FormatError, match=r"'a\.json' is 2 bytes at byte 1024, behind one that ends at 0"):
        Index.read(bare / INDEX)
