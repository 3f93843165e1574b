"""A table comes back from an Arrow file as it was; what is none is named."""

import pyarrow as pa
import pytest

from manifests.files import FormatError
from pipeline.steps.arrow_files import read_arrow, write_arrow


def test_a_table_comes_back(tmp_path):
    table = pa.table({"uid": [b"a", b"b"], "cluster": [None, 3]})
    write_arrow(tmp_path / "deep" / "x.arrow", table)
    assert read_arrow(tmp_path / "deep" / "x.arrow").equals(table)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.arrow"]


def test_another_file_is_named(tmp_path):
    (tmp_path / "x.arrow").write_bytes(b"PAR1")
    with pytest.raises(FormatError, match=r"x\.arrow: not an Arrow file"):
        read_arrow(tmp_path / "x.arrow")
