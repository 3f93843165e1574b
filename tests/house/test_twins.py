"""Tests share nothing but tests/support, and the product names no test."""

import ast
from pathlib import Path

from tests.house.count import modules
from tests.support.paths import ROOT


def imported(path: Path) -> set[str]:
    """Return every dotted name that a file imports, at any depth: of `from a import b`, a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def is_test(name: str) -> bool:
    """Tell whether a dotted name is a test module, or something in one."""
    return name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))


def test_no_test_module_imports_another():
    paths = sorted((ROOT / "tests").rglob("*.py"))
    assert len(paths) > 100
    assert {str(path): names for path in paths if (names := sorted(filter(is_test, imported(path))))} == {}


def test_the_product_names_no_test():
    named = {
        name: sorted(other for other in imported(path) if other.split(".")[0] in ("tests", "conftest", "pytest"))
        for name, path in modules(ROOT).items()
    }
    assert {name: others for name, others in named.items() if others} == {}


def test_what_is_a_test_module():
    assert is_test("tests.manifests.test_files")
    assert is_test("tests.manifests.test_files.half_write")
    assert not is_test("tests.support.records")
    assert not is_test("manifests.test_files")
