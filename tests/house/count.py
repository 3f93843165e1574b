"""Count rooms, layers, arrows and circles of the code: `python tests/house/count.py [ROOT]`.

A room is a package of the table FLOORS, or a module that the table names by itself. An arrow is an import from one room
to another, at any depth: inside functions and under TYPE_CHECKING too. A circle is a set of rooms that import one
another; layers are counted over rooms, a circle as one.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FLOORS = {
    "manifests": 1, "filters.images": 1, "pipeline.gpt_spec": 1,
    "filters": 2, "captioning": 2, "tokenize_shards": 2, "pipeline.gpt": 2,
    "pipeline.recipes": 3, "pipeline.sampling": 3,
    "pipeline.inputs": 4, "pipeline.loading": 4, "pipeline.execution": 4, "pipeline.evaluation": 4,
    "pipeline.steps": 5, "pipeline.training": 5, "pipeline.demo": 5,
    "pipeline.stages": 6, "pipeline.llamagen": 6, "pipeline.train": 6, "pipeline.sample": 6,
    "pipeline.analysis": 7, "pipeline.maintenance": 7, "pipeline.serving": 7,
    "pipeline.report": 8, "pipeline.cli": 9,
}  # fmt: skip
"""Room -> floor. A module belongs to the longest name that begins its own; a room imports lower floors only."""
PACKAGES = ("manifests", "filters", "captioning", "tokenize_shards", "pipeline")


@dataclass(frozen=True)
class Import:
    """One import: the file and line it stands at, the module that imports, the module that is imported."""

    file: str
    line: int
    by: str
    of: str


def modules(root: Path) -> dict[str, Path]:
    """Return dotted name -> file of every module of the five packages."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports_of(name: str, path: Path, known: set[str]) -> Iterator[Import]:
    """Yield the imports of known modules in a file, at any depth; `from a import b` is of a.b where that is a
    module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        for of in sorted(set(found)):
            if of.split(".")[0] in PACKAGES:
                yield Import(str(path), node.lineno, name, of)


def every_import(root: Path) -> list[Import]:
    """Return the imports between all modules of the five packages."""
    known = modules(root)
    return [found for name, path in known.items() for found in imports_of(name, path, set(known))]


def room_of(module: str) -> str:
    """Return the room that a module lies in: the longest name of FLOORS that begins its own, else the module itself."""
    parts = module.split(".")
    return next((name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in FLOORS), module)


def arrows(found: list[Import]) -> dict[str, set[str]]:
    """Return room -> the other rooms that it imports."""
    graph: dict[str, set[str]] = {}
    for one in found:
        by, of = room_of(one.by), room_of(one.of)
        graph.setdefault(by, set())
        graph.setdefault(of, set())
        if by != of:
            graph[by].add(of)
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the sets of more than one node that reach one another, each sorted."""
    reach = {node: _reached(graph, node) for node in graph}
    found = {tuple(sorted(other for other in reach[node] if node in reach[other])) for node in graph}
    return sorted(list(group) for group in found if len(group) > 1)


def _reached(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        fresh = graph.get(ahead.pop(), set()) - seen
        seen |= fresh
        ahead += fresh
    return seen


def layers(graph: dict[str, set[str]]) -> int:
    """Return the number of rooms on the longest way down, a circle counted as one."""
    group = {node: tuple(circle) for circle in circles(graph) for node in circle}
    named = {node: group.get(node, (node,)) for node in graph}
    merged: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for node, others in graph.items():
        merged.setdefault(named[node], set()).update(named[other] for other in others)
    height: dict[tuple[str, ...], int] = {}

    def climb(node: tuple[str, ...]) -> int:
        if node not in height:
            height[node] = 1 + max((climb(other) for other in merged[node] if other != node), default=0)
        return height[node]

    return max((climb(node) for node in merged), default=0)


def upward(found: list[Import]) -> list[str]:
    """Return the imports that do not go down: to a neighbour or a higher floor, or from a module in no room."""
    wrong = []
    for one in found:
        by, of = room_of(one.by), room_of(one.of)
        if by != of and not (by in FLOORS and of in FLOORS and FLOORS[of] < FLOORS[by]) and one.by != "pipeline":
            wrong.append(f"{one.file}:{one.line} {one.by} imports {one.of}")
    return wrong


def third_party(path: Path) -> set[str]:
    """Return the packages that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names)


def main() -> None:
    """Print the figures, each circle, and each import that does not go down."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2])
    found = every_import(root)
    graph = arrows(found)
    module_graph: dict[str, set[str]] = {name: set() for name in modules(root)}
    for one in found:
        module_graph.setdefault(one.by, set()).add(one.of)
    print(
        f"{len(modules(root))} modules in {len(graph)} rooms, {layers(graph)} layers,"
        f" {sum(map(len, graph.values()))} arrows, {len(circles(graph))} circles of rooms,"
        f" {len(circles(module_graph))} circles of modules, {len(upward(found))} imports that do not go down"
    )
    for circle in [*circles(graph), *circles(module_graph)]:
        print("  circle:", ", ".join(circle))
    for line in upward(found):
        print("  up:", line)


if __name__ == "__main__":
    main()
