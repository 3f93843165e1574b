"""pipeline/execution/hidden_imports.py: what is hidden, for how long, and that pyarrow goes on without pandas."""

import json
import subprocess
import sys

import pytest

from pipeline.execution.hidden_imports import hidden
from tests.support.paths import ROOT


def test_hidden_packages_cannot_be_imported_and_others_can(monkeypatch):
    for name in ("colorsys", "this_is_none"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    finders = list(sys.meta_path)
    with hidden("colorsys", "json"):
        with pytest.raises(ModuleNotFoundError, match="'colorsys'") as raised:
            __import__("colorsys")
        assert raised.value.name == "colorsys"
        assert __import__("json") is json  # imported before
        with pytest.raises(ModuleNotFoundError, match=r"'this_is_none'$"):
            __import__("this_is_none")
    assert sys.meta_path == finders
    assert __import__("colorsys").rgb_to_hsv(0, 0, 1) == (2 / 3, 1, 1)  # blue


def test_packages_are_hidden_no_longer_after_an_error():
    finders = list(sys.meta_path)
    with pytest.raises(ValueError, match="broken"), hidden("colorsys"):
        raise ValueError("broken")
    assert sys.meta_path == finders


def test_pyarrow_imports_pandas_when_a_frame_is_asked_for_and_not_before():
    code = """
import sys
from pipeline.execution.hidden_imports import arrow_without_pandas
arrow_without_pandas()
import pyarrow as pa
table = pa.table({"n": [1, 2]})
print("pandas" in sys.modules, table.to_pandas()["n"].sum())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True)
    assert done.stdout == "False 3\n"
