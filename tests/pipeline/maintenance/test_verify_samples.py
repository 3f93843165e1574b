"""pipeline/maintenance/verify_samples.py: a sample that cannot be trained on is found in a shard that is whole."""

import json
import re

import numpy as np
import pytest

from manifests.findings import Finding
from manifests.shards import write_shard
from manifests.verify import Report
from manifests.verify_shards import verify_folder
from pipeline.maintenance import verify_samples
from pipeline.maintenance.verify_samples import Contents, look_into, with_samples
from tests.support.code_shards import row_of, tokenizer, write_codes
from tokenize_shards.samples import npy_bytes, sample_parts

EMPTY = Report(0, 0, ())


@pytest.fixture
def bare(tmp_path):
    """Return a folder of three shards of 3, 4 and 2 samples."""
    write_codes(tmp_path, (3, 4, 2))
    return tmp_path / "codes" / "pretrain"


def test_whole_shards_are_counted(bare):
    report = with_samples(bare, EMPTY.also((), ["before"]), 1)
    assert (report.findings, report.said) == ((), ("before", "samples: 9 in 3 code shards looked into"))


def test_a_shard_is_read_up_to_its_first_fault(bare):
    name = str(tokenizer())
    assert look_into(bare / "00001.tar") == Contents(4, frozenset({name}), frozenset())
    spoilt(bare, codes_npy=b"?")
    broken = look_into(bare / "00003.tar")
    assert (broken.samples, broken.tokenizers) == (1, frozenset({name}))
    assert broken.fault.startswith(f"sample {51:032x}")


def test_shards_that_verify_found_damaged_are_not_looked_into(bare):
    spoilt(bare, codes_npy=b"?")
    findings = (Finding("00000.index.json", "damaged", "?"), Finding("00003.tar", "damaged", "?"))
    report = with_samples(bare, EMPTY.also(findings, ()), 1)
    assert (report.findings, report.said) == (findings, ("samples: 6 in 2 code shards looked into",))


def test_shards_without_codes_are_not_looked_into(bare, tmp_path):
    write_shard(tmp_path / "pairs" / "00000.tar", [("a", {"jpg": b"?"})], index=True)
    write_shard(tmp_path / "pairs" / "00001.tar", [("a", {"codes.npy": b"?"})])  # it has no index
    assert with_samples(tmp_path, EMPTY, 1).said == ("samples: 9 in 3 code shards looked into",)


def test_many_shards_are_read_by_processes(bare, monkeypatch):
    """The pool is a stand-in: what it is given is what the processes would read."""

    class Pool:
        """Read in this process."""

        def __init__(self, jobs, mp_context):
            assert (jobs, mp_context.get_start_method()) == (2, "spawn")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        map = staticmethod(map)

    monkeypatch.setattr(verify_samples, "IN_PROCESS", 2)
    monkeypatch.setattr(verify_samples, "ProcessPoolExecutor", Pool)
    assert with_samples(bare, EMPTY, 2).said == ("samples: 9 in 3 code shards looked into",)


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
