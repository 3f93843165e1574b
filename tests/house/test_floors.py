"""Imports go down the floors only, and the command line answers without heavy imports."""

import ast
import subprocess
import sys

import pytest

from tests.house.count import FLOORS, arrows, circles, every_import, layers, modules, room_of, third_party, upward
from tests.support.paths import ROOT

MOST_LAYERS = 10
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


@pytest.fixture(scope="module")
def found():
    return every_import(ROOT)


def test_imports_go_down_the_floors_only(found):
    assert len(found) > 500
    assert upward(found) == []


def test_there_are_no_circles_and_few_layers(found):
    graph = arrows(found)
    assert circles(graph) == []
    assert layers(graph) <= MOST_LAYERS
    between: dict[str, set[str]] = {name: set() for one in found for name in (one.by, one.of)}
    for one in found:
        between[one.by].add(one.of)
    assert circles(between) == []


def test_every_module_lies_in_a_room_and_every_room_is_there():
    rooms = {room_of(name) for name in modules(ROOT)} - {"pipeline"}
    assert rooms == set(FLOORS)


def test_an_import_inside_a_function_or_for_types_counts(tmp_path):
    file = tmp_path / "manifests" / "late.py"
    file.parent.mkdir()
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "gpt.py").write_text("")
    file.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pipeline import gpt\n"
        "def late():\n    import pipeline.gpt\n"
    )
    assert [line.partition("late.py")[2] for line in upward(every_import(tmp_path))] == [
        ":3 manifests.late imports pipeline.gpt",
        ":5 manifests.late imports pipeline.gpt",
    ]


def test_circles_and_layers_are_counted():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert circles(graph) == [["b", "c"]]
    assert layers(graph) == 3  # d, the circle, a
    assert layers({"a": {"b"}, "b": {"c"}, "c": set()}) == 3


def test_what_is_stored_needs_only_arrow_duckdb_and_fsspec():
    allowed = {"pyarrow", "duckdb", "fsspec", "manifests"}
    wrong = {path.name: third_party(path) - allowed for path in (ROOT / "manifests").rglob("*.py")}
    assert {name: more for name, more in wrong.items() if more} == {}


def loaded_after(statement: str) -> list[str]:
    code = f"{statement}; import sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return ast.literal_eval(result.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    "module",
    [
        "pipeline.cli",
        "pipeline.recipes.load",
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
    assert [path for path in paths if "apache_beam" in third_party(path)] == []
