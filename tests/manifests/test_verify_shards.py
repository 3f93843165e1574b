"""A bare folder of code shards, as a downloader has it: sidecars that are lost or another's, tars that are none,
samples badly made."""

import gzip
import io
import json
import re
import shutil
import tarfile

import numpy as np
import pytest
import webdataset
from typer.testing import CliRunner

from manifests.files import FormatError, read_json, write_json
from manifests.shards import Index, index_path, write_shard
from manifests.verify_shards import verify_folder
from pipeline.cli import app
from pipeline.maintenance.verify_samples import with_samples
from tests.support.code_shards import row_of, tokenizer, write_codes
from tokenize_shards.samples import npy_bytes, sample_parts


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


def spoilt(bare, **changes):
    """Write a shard whose second sample is made with these members instead."""
    samples = [sample_parts(row_of(number), "pretrain", tokenizer(), "parent") for number in range(50, 53)]
    samples[1] |= {name.replace("_", "."): data for name, data in changes.items()}
    write_shard(
        bare / "00003.tar", [(f"{50 + number:032x}", parts) for number, parts in enumerate(samples)], index=True
    )


def note(**changes):
    return json.dumps(
        {**json.loads(sample_parts(row_of(51), "pretrain", tokenizer(), "parent")["json"]), **changes}
    ).encode()


CODES = np.zeros((1, 64), np.uint16)
BAD = {
    "outside the codebook": {"codes_npy": npy_bytes(CODES + 60_000)},
    "codes are int64": {"codes_npy": npy_bytes(CODES.astype(np.int64))},
    "3 code arrays, but 1 crops": {"codes_npy": npy_bytes(np.repeat(CODES, 3, 0))},
    "cannot be read": {"codes_npy": b"?"},
    "JSONDecodeError": {"json": b"{"},
    "0.0% finite numbers": {"t5_npy": npy_bytes(np.full((3, 8), np.nan, np.float16))},
    r"features are \(24,\)": {"t5_npy": npy_bytes(np.zeros(24, np.float16))},
    "made by .*ffff": {"json": note(tokenizer={"name": "VQ-demo", "fingerprint": "f" * 64, "codebook": 512})},
}


@pytest.mark.parametrize("says", BAD)
def test_samples_that_were_badly_made_are_found_when_they_are_looked_into(bare, says):
    spoilt(bare, **BAD[says])
    whole = verify_folder(bare, 1)
    assert whole.findings == ()  # the tar is as its index says
    (finding,) = with_samples(bare, whole, 1).wrong
    assert finding.path == "00003.tar"
    assert re.search(says, finding.says), finding.says


def test_features_of_two_widths_in_one_folder(bare):
    for number, width in ((3, 8), (4, 16)):
        parts = sample_parts(row_of(number + 50), "pretrain", tokenizer(), "parent")
        features = npy_bytes(np.ones((3, width), np.float16))
        write_shard(bare / f"0000{number}.tar", [(f"{number + 50:032x}", {**parts, "t5.npy": features})], index=True)
    (finding,) = with_samples(bare, verify_folder(bare, 1)).wrong
    assert (finding.path, finding.says) == ("00004.tar", "features of width 16, the first sample of its folder 8")


def test_the_option_of_verify(bare):
    done = CliRunner().invoke(app, ["verify", str(bare), "--samples"])
    assert (done.exit_code, "samples: 9 in 3 code shards looked into" in done.output) == (0, True), done.output
    spoilt(bare, json=b"{")
    assert CliRunner().invoke(app, ["verify", str(bare)]).exit_code == 0
    done = CliRunner().invoke(app, ["verify", str(bare), "--samples"])
    assert (done.exit_code, "damaged  00003.tar: sample 0000" in done.output) == (1, True), done.output
