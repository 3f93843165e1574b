"""Imports go down the floors only, and the command line answers without heavy imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = {"manifests": 1, "filters": 2, "captioning": 2, "tokenize_shards": 2, "pipeline": 3}
HEAVY = (
    "torch",
    "open_clip",
    "apache_beam",
    "transformers",
    "webdataset",
    "onnxruntime",
    "scipy",
    "timm",
    "torchvision",
    "img2dataset",
    "cv2",
)


def imported(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module.split(".")[0], node.lineno))
    return found


@pytest.mark.parametrize("package", FLOORS)
def test_imports_go_down(package):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for path in (ROOT / package).rglob("*.py")
        for other, line in imported(path)
        if other in FLOORS and other != package and FLOORS[other] >= FLOORS[package]
    ]
    assert wrong == []


def test_floor_one_needs_only_arrow_duckdb_and_the_standard_library():
    allowed = {"pyarrow", "duckdb", "manifests", *sys.stdlib_module_names}
    wrong = [
        (str(path.name), other)
        for path in (ROOT / "manifests").rglob("*.py")
        for other, _ in imported(path)
        if other not in allowed
    ]
    assert wrong == []


def loaded_after(statement: str) -> list[str]:
    code = f"{statement}; import sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return ast.literal_eval(result.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "module",
    [
        "pipeline.cli",
        "pipeline.recipes.schema",
        "pipeline.stages.registry",
        "filters.base",
        "filters.scorers.catalog",
        "captioning.base",
    ],
)
def test_light_modules_import_nothing_heavy(module):
    assert loaded_after(f"import {module}") == []


def test_help_loads_neither_arrow_nor_pydantic():
    code = (
        "import sys; from typer.testing import CliRunner; from pipeline.cli import app;"
        "r = CliRunner().invoke(app, ['--help']);"
        "assert r.exit_code == 0 and 'pretokenize' in r.output;"
        "print([n for n in ('pyarrow', 'pydantic', 'numpy', 'duckdb') if n in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


def test_the_trainer_never_names_beam():
    paths = [*(ROOT / "pipeline").glob("*.py"), *(ROOT / "pipeline" / "training").glob("*.py")]
    assert len(paths) > 8
    for path in paths:
        assert all(other != "apache_beam" for other, _ in imported(path)), path
