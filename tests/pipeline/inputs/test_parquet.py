"""Row groups one by one: their rows, the bytes that hold them, and what is said of damaged ones."""

import hashlib
import struct

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import FormatError
from pipeline.inputs.parquet import BrokenGroup, RowGroups, is_local, located, open_input, parsing, read_footer


@pytest.fixture
def path(tmp_path):
    """Five rows in groups of two, two and one; two columns, plain and not compressed."""
    table = pa.table({"URL": ["u0", "u1", "u2", "u3", "u4"], "n": pa.array(range(5), pa.int64())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2, compression="none", use_dictionary=False)
    return tmp_path / "a.parquet"


def damage(path, old, new):
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def test_groups_are_read_in_batches(path):
    with RowGroups(str(path)) as file:
        assert (file.names, file.rows) == (("URL", "n"), (2, 2, 1))
        assert [batch.to_pydict() for batch in file.batches(1, ["n"], 1)] == [{"n": [2]}, {"n": [3]}]
        assert [batch.to_pydict() for batch in file.batches(2, ["URL", "n"], 10)] == [{"URL": ["u4"], "n": [4]}]


def test_a_remote_file_has_the_rows_and_no_digest(path):
    fsspec.filesystem("memory").pipe("/groups/a.parquet", path.read_bytes())
    with RowGroups("memory://groups/a.parquet") as file:
        assert [batch.to_pydict() for batch in file.batches(2, ["URL"], 10)] == [{"URL": ["u4"]}]
        assert file.digest([0], ["URL"]) == ""


def test_local_is_what_has_no_scheme_or_that_of_files():
    urls = ("/a/b.parquet", "file:///a/b.parquet", "local:///a", "s3://a/b", "memory://a")
    assert [is_local(url) for url in urls] == [True, True, True, False, False]


def test_two_colons_in_a_local_name_chain_nothing(path, monkeypatch):
    """fsspec reads a::b as b within a: a file of that name was lost."""
    monkeypatch.chdir(path.parent)
    for name in ("a::b.parquet", "memory::c.parquet", "file:d.parquet"):  # the second begins like a chain
        path.with_name(name).write_bytes(path.read_bytes())
        for url in (name, f"{path.parent}/{name}", f"file://{path.parent}/{name}"):
            assert located(url)[1] == f"{path.parent}/{name}"
            with RowGroups(url) as file:
                assert (file.rows, len(file.digest([0], ["n"]))) == ((2, 2, 1), 64)
    assert not is_local("memory::none.parquet")
    fsspec.filesystem("memory").pipe("/chained/a.parquet", b"x")
    assert located("filecache::memory://chained/a.parquet")[0].protocol == "filecache"
    assert located("memory://chained/a.parquet")[1] == "/chained/a.parquet"


def test_the_digest_is_of_the_column_chunks_in_their_order(path):
    """Group 0 of n: a page header, the repetition levels' length, and 0 and 1 as little-endian words, wherever they
    lie; so another value changes the digest of its own group and column alone."""
    with RowGroups(str(path)) as file:
        before = [file.digest([group], [name]) for group in range(3) for name in ("URL", "n")]
        nothing = file.digest([], ["n"])
    damage(path, struct.pack("<qq", 2, 3), struct.pack("<qq", 2, 7))
    with RowGroups(str(path)) as file:
        after = [file.digest([group], [name]) for group in range(3) for name in ("URL", "n")]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, True, False, True, True]
    assert len(set(before)) == 6
    assert nothing == hashlib.sha256().hexdigest()


def test_the_digest_of_a_file_that_is_gone_says_so(path):
    with RowGroups(str(path)) as file:
        path.unlink()
        assert file.digest([0], ["n"]) == "unreadable: No such file or directory"


def test_a_damaged_group_is_named_and_the_others_are_read(path):
    with RowGroups(str(path)) as file:
        start = file._file.metadata.row_group(1).column(1).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    with RowGroups(str(path)) as file:
        with pytest.raises(BrokenGroup, match=r"^a\.parquet: row group 1: .") as caught:
            list(file.batches(1, ["n"], 10))
        assert (caught.value.group, caught.value.file) == (1, "a.parquet")
        assert isinstance(caught.value, FormatError)
        assert caught.value.cause.startswith("row group 1: ")
        assert [batch.to_pydict() for batch in file.batches(2, ["n"], 10)] == [{"n": [4]}]


def test_a_group_without_its_columns_is_broken(path):
    with RowGroups(str(path)) as file, pytest.raises(BrokenGroup) as caught:
        list(file.batches(0, [], 10))
    assert str(caught.value) == "a.parquet: row group 0: none of its columns is wanted"


def test_a_group_with_fewer_rows_than_promised_is_broken_after_its_rows(path):
    with RowGroups(str(path)) as file:
        file.rows = (3, 2, 1)
        batches = file.batches(0, ["n"], 10)
        assert next(batches).to_pydict() == {"n": [0, 1]}
        with pytest.raises(BrokenGroup, match="row group 0: 2 rows where the footer promises 3"):
            next(batches)


@pytest.mark.parametrize("data", [b"", b"PAR1 no table PAR1", b"PAR1" + b"\xff" * 40 + b"\x20\0\0\0PAR1"])
def test_what_is_no_parquet_file_is_a_format_error_with_its_name(tmp_path, data):
    (tmp_path / "b.parquet").write_bytes(data)
    with pytest.raises(FormatError, match=r"^b\.parquet: ."):
        RowGroups(str(tmp_path / "b.parquet"))
    with open_input(str(tmp_path / "b.parquet")) as file, pytest.raises(FormatError, match=r"^c\.parquet: ."):
        read_footer(file, "s3://bucket/in/c.parquet")


def test_a_column_whose_name_is_not_utf8_is_a_format_error(path):
    data = path.read_bytes()
    path.write_bytes(data.replace(b"URL", b"\xff\xffL"))
    with pytest.raises(FormatError, match=r"^a\.parquet: .*utf-8"):
        RowGroups(str(path))


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        RowGroups(str(tmp_path / "none.parquet"))


def test_faults_of_the_program_are_no_faults_of_the_file():
    for fault in (AssertionError("ours"), MemoryError(), KeyError("ours"), TypeError("ours")):
        with pytest.raises(type(fault)), parsing("a.parquet"):
            raise fault
    with pytest.raises(FormatError, match=r"^a\.parquet: EOFError$"), parsing("in/a.parquet"):
        raise EOFError


def test_the_footer_of_an_open_file(path):
    with open_input(str(path)) as file:
        footer, names = read_footer(file, str(path))
    assert (footer.num_rows, footer.num_row_groups, names) == (5, 3, ["URL", "n"])
