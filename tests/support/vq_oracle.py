"""Where the reference's outputs are, and its rule for stand-in weights and pictures."""

import importlib.util
import types

import pytest

from tests.support.paths import SHARED

ORACLE = SHARED / "oracle"
needs_oracle = pytest.mark.skipif(
    not ORACLE.is_dir(), reason="the reference's outputs (shared/oracle) are not beside this checkout"
)


def oracle_module() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("oracle_weights", ORACLE / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
