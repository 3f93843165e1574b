"""A packed index of other shards than those that are there is found, in runs and in bare folders."""

import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from manifests.journal import FileRecord, Journal
from manifests.verify import Report, verify_run
from manifests.verify_shards import verify_folder
from pipeline.maintenance.repair.run import STAGE_STEPS
from pipeline.maintenance.verify import look
from pipeline.maintenance.verify_index import with_bare_indexes, with_run_indexes
from tests.support.code_shards import write_codes
from tests.support.object_store import in_memory, put_run
from tokenize_shards.packed_index import NAME, write_packed_index

NOTHING = Report(0, 0, ())
PATH = f"codes/pretrain/{NAME}"


def said(report):
    return [(finding.path, finding.kind, finding.says) for finding in report.findings]


def take(root, data):
    """Let the run's own record say that these are the bytes of its index."""
    (root / PATH).write_bytes(data)
    journal = Journal(root, "index")
    record = journal.get("pretrain-00000")
    journal.record(replace(record, files=(FileRecord.of(root, root / PATH),)))


@pytest.fixture
def folder(tmp_path):
    write_codes(tmp_path, (3, 2))
    write_packed_index(tmp_path / "codes" / "pretrain")
    return tmp_path / "codes" / "pretrain"


def test_a_whole_run_has_no_finding(made):
    assert said(with_run_indexes(made, NOTHING, rows=True)) == []


def test_one_of_other_shards_is_stale_though_its_record_is_right(run):
    take(run, (run / "codes" / "finetune" / NAME).read_bytes())
    ((path, kind, says),) = said(with_run_indexes(run, NOTHING))
    assert (path, kind) == (PATH, "stale")
    assert says.startswith(
        "it is not of the shards that are there: it has 2 otherwise, such as 00000.tar; pipeline run"
    )
    assert PATH in {finding.path for finding in look(run, 1, quiet=True).wrong}


def test_rows_are_looked_at_where_it_is_asked(run):
    with pq.ParquetFile(run / PATH) as file:
        tables = [file.read_row_group(number) for number in range(file.num_row_groups)]
        shards = file.metadata.metadata[b"shards"].decode()
    with pq.ParquetWriter(run / PATH, tables[0].schema) as writer:
        writer.write_table(tables[0])
        writer.write_table(tables[1][::-1])  # the right samples in another order than the shard's
        writer.add_key_value_metadata({"shards": shards})
    take(run, (run / PATH).read_bytes())
    assert said(with_run_indexes(run, NOTHING)) == []
    ((path, kind, says),) = said(with_run_indexes(run, NOTHING, rows=True))
    assert (path, kind) == (PATH, "stale")
    assert says.startswith("what it says of 00001.tar is not what 00001.index.json says; pipeline run")


def test_what_verify_has_named_is_not_looked_at_again(run):
    (run / PATH).write_bytes(b"PAR1")
    report = verify_run(run, STAGE_STEPS)
    assert [finding.kind for finding in report.wrong if finding.path == PATH] == ["damaged"]
    assert with_run_indexes(run, report, rows=True).findings == report.findings


def test_a_bare_folder_is_looked_at_row_by_row(folder, tmp_path):
    assert look(folder, 1, quiet=True).findings == ()
    other = tmp_path / "other"
    write_codes(other, (3, 2), crops=2)
    shutil.copy(write_packed_index(other / "codes" / "pretrain"), folder / NAME)
    ((path, kind, says),) = said(look(folder, 1, quiet=True))
    assert (path, kind) == (NAME, "damaged")
    assert says == "it is not of the shards that are there: it has 2 otherwise, such as 00000.tar"


def test_a_bit_of_a_row_is_found(folder):
    data = bytearray((folder / NAME).read_bytes())
    data[40] ^= 1  # in the first column of the first row group
    (folder / NAME).write_bytes(data)
    ((path, kind, _),) = said(look(folder, 1, quiet=True))
    assert (path, kind) == (NAME, "damaged")


def test_beside_a_damaged_shard_it_is_not_looked_at(folder):
    (folder / "00001.tar").write_bytes(b"")
    report = verify_folder(folder)
    assert with_bare_indexes(folder, report).findings == report.findings
    assert [finding.path for finding in report.findings] == ["00001.tar"]


def test_of_a_bare_folder_in_a_store_the_same_is_found(folder):
    assert look(put_run(folder, in_memory()), 1, quiet=True).findings == ()
    write_codes(folder.parent.parent, (3, 2, 1))
    assert [finding.path for finding in look(put_run(folder, in_memory()), 1, quiet=True).findings] == [NAME]
