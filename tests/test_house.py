"""One's way through the code: no circles, one name for one thing, rooms of a size."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import grandbatch

ROOT = Path(grandbatch.__file__).parent
RETIRED = ("Piece", "PieceTask", "RunGuard", "RunRecord", "Resources", "Place")
"""Names of classes that meant what another word means: Run, BlockJob, TrainingGuard, …"""


def modules():
    """Every module by its dotted name, with its syntax tree."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = list(path.relative_to(ROOT.parent).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path, ast.parse(path.read_text())
    return found


MODULES = modules()


def imports(tree):
    """Modules of the package that a module names in any import, for types too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("grandbatch"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def circles(graph):
    """Groups of modules that reach each other, by Tarjan's algorithm."""
    number, low, stack, found = {}, {}, [], []

    def visit(one):
        number[one] = low[one] = len(number)
        stack.append(one)
        for other in graph[one]:
            if other not in number:
                visit(other)
                low[one] = min(low[one], low[other])
            elif other in stack:
                low[one] = min(low[one], number[other])
        if low[one] == number[one]:
            at = stack.index(one)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for one in graph:
        if one not in number:
            visit(one)
    return found


def test_the_search_for_circles_finds_one():
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": []}) == [["b", "c"]]


def test_no_module_imports_another_in_a_circle_not_even_for_types():
    graph = {name: set(imports(tree)) - {name} for name, (_, tree) in MODULES.items()}
    assert circles(graph) == []


def test_no_class_name_stands_twice():
    homes = defaultdict(list)
    for name, (_, tree) in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name)
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}
    assert not set(RETIRED) & set(homes)


def test_no_package_has_more_than_fifteen_modules():
    sizes = Counter(path.parent for path, _ in MODULES.values() if path.name != "__init__.py")
    assert {str(folder): n for folder, n in sizes.items() if n > 15} == {}


def test_every_package_of_several_modules_says_what_it_is():
    for path, tree in MODULES.values():
        if path.name == "__init__.py":
            assert ast.get_docstring(tree), path


def test_the_maps_name_the_modules_that_are_there():
    for path, tree in MODULES.values():
        named = re.findall(r"^\| `(\w+)` \|", ast.get_docstring(tree) or "", re.MULTILINE)
        if path.name == "__init__.py" and named:
            there = {other.stem for other in path.parent.glob("*.py")} - {"__init__"}
            there |= {other.parent.name for other in path.parent.glob("*/__init__.py")}
            assert set(named) == there, path
