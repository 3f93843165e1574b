"""Which exceptions are caught: no fault of code or machine, and few classes but where a border raises."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house.count import modules
from tests.support.paths import ROOT

MOST_CLASSES = 4
NEVER = {"AssertionError", "MemoryError"}


@dataclass(frozen=True)
class Handler:
    """An `except` clause or a `suppress`: where it stands, the classes that it names, the length of the longest list
    that it or a constant in it writes out, whether it raises itself."""

    place: str
    classes: tuple[str, ...]
    longest: int
    raises: bool


def constants_of(trees: dict[str, ast.Module]) -> dict[str, ast.expr]:
    """Return name -> value of the tuples of classes that modules assign."""
    found: dict[str, ast.expr] = {}
    for tree in trees.values():
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            for target in targets:
                if isinstance(target, ast.Name) and isinstance(node.value, ast.Tuple):  # type: ignore[attr-defined]
                    found[target.id] = node.value  # type: ignore[attr-defined]
    return found


def named(node: ast.expr | None, constants: dict[str, ast.expr]) -> Iterator[str]:
    """Yield the names of the classes in an expression, those in constants too; a bare `except` names BaseException."""
    if isinstance(node, ast.Tuple):
        for element in node.elts:
            yield from named(element, constants)
    elif isinstance(node, ast.Starred):
        yield from named(node.value, constants)
    elif isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in constants:
            yield from named(constants[name], constants)
        else:
            yield name
    else:
        yield "BaseException"


def longest(node: ast.expr | None, constants: dict[str, ast.expr]) -> int:
    """Return how many classes the longest list writes out: the expression itself, or a constant that it names."""
    if isinstance(node, ast.Tuple):
        return max([len(node.elts), *(longest(element, constants) for element in node.elts)])
    if isinstance(node, ast.Starred):
        return longest(node.value, constants)
    name = node.id if isinstance(node, ast.Name) else ""
    return longest(constants[name], constants) if name in constants else 1


def handlers(paths: dict[str, Path]) -> list[Handler]:
    """Return every handler of these modules, by dotted name and line."""
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in paths.items()}
    constants, found = constants_of(trees), []
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                raises = any(isinstance(part, ast.Raise) for statement in node.body for part in ast.walk(statement))
                classes = tuple(named(node.type, constants))
                found.append(Handler(f"{name}:{node.lineno}", classes, longest(node.type, constants), raises))
            elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "suppress":
                listed = ast.Tuple(node.args)
                classes = tuple(named(listed, constants))
                found.append(Handler(f"{name}:{node.lineno}", classes, longest(listed, constants), raises=False))
    return found


@pytest.fixture(scope="module")
def found() -> list[Handler]:
    return handlers(modules(ROOT))


def test_no_handler_takes_a_failed_assertion_or_a_lack_of_memory_for_anything_else(found):
    assert len(found) > 150
    assert [handler.place for handler in found if NEVER & {*handler.classes}] == []


def test_only_a_border_that_raises_lists_many_classes(found):
    assert [handler for handler in found if handler.longest > MOST_CLASSES and not handler.raises] == []


def test_classes_in_constants_and_in_suppress_count(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        "OTHERS: tuple[type[Exception], ...] = (KeyError, codecs.StrangeError, EOFError)\nMANY = (OSError, *OTHERS)\n"
        "try:\n    with contextlib.suppress(MANY, MemoryError):\n        pass\n"
        "except (EOFError, *MANY):\n    pass\n"
        "except ValueError as error:\n    if error:\n        raise\n"
        "except:\n    pass\n"
    )
    assert sorted(handlers({"a": path}), key=lambda handler: int(handler.place[2:])) == [
        Handler("a:4", ("OSError", "KeyError", "StrangeError", "EOFError", "MemoryError"), 3, False),
        Handler("a:6", ("EOFError", "OSError", "KeyError", "StrangeError", "EOFError"), 3, False),
        Handler("a:8", ("ValueError",), 1, True),
        Handler("a:11", ("BaseException",), 1, False),
    ]
