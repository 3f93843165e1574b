"""Every module has a test module of its own name that imports it; tests share nothing but tests/support."""

import ast
import functools
from pathlib import Path

from tests.house.count import modules
from tests.support.paths import ROOT

SHORT = 20
"""Modules of so many lines need no twin."""


@functools.cache
def imported(path: Path) -> set[str]:
    """Return every dotted name that a file imports, at any depth: of `from a import b`, a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def missing_twins(root: Path) -> list[str]:
    """Return a line for each module over SHORT lines whose twin is not there, or does not import it.

    The twin of `__main__.py` is test_main.py.
    """
    lines = []
    for name, path in modules(root).items():
        if path.name == "__init__.py" or len(path.read_text(encoding="utf-8").splitlines()) <= SHORT:
            continue
        stem = "main" if path.stem == "__main__" else path.stem
        twin = Path("tests", path.relative_to(root).parent, f"test_{stem}.py")
        if not (root / twin).exists():
            lines.append(f"{twin} is not there")
        elif name not in imported(root / twin):
            lines.append(f"{twin} does not import {name}")
    return lines


def is_test(name: str) -> bool:
    """Tell whether a dotted name is a test module, or something in one."""
    return name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))


def test_every_module_has_its_twin():
    missing = missing_twins(ROOT)
    assert not missing, "\n".join([f"{len(missing)} twins are missing:", *missing])


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


def test_a_twin_lies_beside_its_module_and_imports_it(tmp_path):
    for name, lines in (("late", 21), ("other", 21), ("alone", 21), ("short", 20), ("__init__", 21), ("__main__", 21)):
        path = tmp_path / "manifests" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x = 1\n" * lines)
    twins = tmp_path / "tests" / "manifests"
    twins.mkdir(parents=True)
    (twins / "test_late.py").write_text("def test_x():\n    from manifests import late\n")
    (twins / "test_other.py").write_text("import manifests.late\nfrom manifests.others import other\n")
    assert missing_twins(tmp_path) == [
        "tests/manifests/test_main.py is not there",
        "tests/manifests/test_alone.py is not there",
        "tests/manifests/test_other.py does not import manifests.other",
    ]


def test_what_is_a_test_module():
    assert is_test("tests.manifests.test_files")
    assert is_test("tests.manifests.test_files.half_write")
    assert not is_test("tests.support.records")
    assert not is_test("manifests.test_files")
