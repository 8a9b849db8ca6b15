"""One's way through the code: no circles, one name for one thing, rooms of a size."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import grandbatch

ROOT = Path(grandbatch.__file__).parent
RETIRED = {
    "grandbatch": {"runguard", "runrecord", "resources"},
    "grandbatch.bars": {"layout", "layouts", "tableblock", "piece", "pieces"},
    **{
        key: {"piece", "pieces"}
        for key in (
            f"grandbatch.{part}" for part in ("store", "order", "builder", "grid", "doctor")
        )
    },
    "grandbatch.files": {"place", "places", "piece"},
    "grandbatch.loader": {"stretch", "piece", "pieces"},
}
"""Words that stand in no name of a part any more: what they meant has another word in the table of
docs/internals.md."""

OF_EACH_ITS_OWN = {"BLOCK", "FORMAT", "LOOKBACK", "N_FEATURES", "STATE_FORMAT", "logger"}
"""Names of what several parts have, each its own: a kernel's lookback, the format of a file."""

SCREEN_LINES = 60
"""So many lines a function has at the most, without its docstring."""

FLOORS = 7
"""So many parts of `bars/` import one another in a row, at the most, its face among them."""

REPEATED_LINES = 10
"""So many lines of the same logic stand once."""


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


def longest_way(graph):
    """The longest row of nodes of which each leads to the next, in a graph without circles."""
    ways = {}

    def way(one):
        if one not in ways:
            ways[one] = (one, *max(map(way, graph[one]), key=len, default=()))
        return ways[one]

    return max(map(way, graph), key=len)


def test_bars_have_seven_floors():
    assert longest_way({"a": ["b", "c"], "b": ["c"], "c": [], "d": ["a"]}) == ("d", "a", "b", "c")
    rooms = defaultdict(set)
    for name, (_, tree) in MODULES.items():
        if f"{name}.".startswith("grandbatch.bars."):
            _, _, room, *_ = [*name.split("."), "its face"]
            others = {other for other in imports(tree) if other.startswith("grandbatch.bars.")}
            rooms[room] |= {other.split(".")[2] for other in others} - {room}
    assert rooms["its face"] >= {"prepare", "rules"}
    assert rooms["prepare"] >= {"building", "cache"}
    assert len(longest_way(rooms)) <= FLOORS


def test_no_class_name_stands_twice():
    homes = defaultdict(list)
    for name, (_, tree) in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name)
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def named(tree):
    """What a module names: its classes and functions, with their methods, and its variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        for inner in node.body if isinstance(node, ast.Module | ast.ClassDef) else ():
            targets = getattr(inner, "targets", [getattr(inner, "target", None)])
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_no_public_name_stands_for_two_things():
    """Constants and types, that is; types of flags are named as one types them."""
    meant = defaultdict(set)
    for module, (_, tree) in MODULES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                meant[node.name].add(module)
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                value = ast.unparse(node.value)
                if value.startswith("Annotated["):
                    continue
                for target in targets:
                    is_tuple = isinstance(target, ast.Tuple)
                    for at, one in enumerate(target.elts if is_tuple else [target]):
                        meant[ast.unparse(one)].add((value, at) if is_tuple else value)
    assert {"BarRules", "BAR_COLUMNS", "LEAST"} <= meant.keys()
    assert {
        name
        for name, values in meant.items()
        if len(values) > 1 and name[0] != "_" and name not in OF_EACH_ITS_OWN
    } == set()


def words(name):
    """The words of a name, in small letters, and the name as one."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    return {part.lower() for part in parts} | {name.lower().strip("_")}


def test_words_that_were_given_up_stand_in_no_name():
    assert words("_by_Piece") >= {"by", "piece"}
    assert words("PieceTask") >= {"piece", "task", "piecetask"}
    found = {
        f"{module}: {name}"
        for part, retired in RETIRED.items()
        for module, (_, tree) in MODULES.items()
        if module == part or module.startswith(f"{part}.")
        for name in named(tree)
        if words(name) & retired
    }
    assert found == set()


def statements(function):
    """The lines of a function as Python writes them, without its docstring and its head."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return "\n".join(map(ast.unparse, body)).splitlines()


def lines_of(function):
    """Lines of a function as they stand, without its docstring."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    return (
        function.end_lineno
        - function.lineno
        + 1
        - documented * (first.end_lineno - first.lineno + 1)
    )


def test_a_function_fits_a_screen():
    lengths = {
        f"{name}.{node.name}": lines_of(node)
        for name, (_, tree) in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name for name, lines in lengths.items() if lines > SCREEN_LINES} == set()


def repeated(functions):
    """Places of logic that stands twice, `REPEATED_LINES` lines or more."""
    homes = defaultdict(set)
    for home, function in functions:
        lines = statements(function)
        for at in range(len(lines) - REPEATED_LINES + 1):
            homes["\n".join(lines[at : at + REPEATED_LINES])].add(home)
    return {tuple(sorted(where)) for where in homes.values() if len(where) > 1}


def test_no_ten_lines_of_logic_stand_twice():
    others = [*ROOT.parent.glob("benchmarks/**/*.py"), *ROOT.parent.glob("pipelines/*.py")]
    trees = {path: ast.parse(path.read_text()) for path in others}
    trees |= dict(MODULES.values())
    functions = [
        (f"{path.relative_to(ROOT.parent)}:{node.name}", node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    assert len(functions) > 1000
    long = next(function for _, function in functions if len(statements(function)) > 12)
    assert repeated([("here", long), ("there", long)]) == {("here", "there")}
    assert repeated(functions) == set()


def test_no_package_has_more_than_fifteen_modules():
    sizes = Counter(path.parent for path, _ in MODULES.values() if path.name != "__init__.py")
    assert {str(folder): n for folder, n in sizes.items() if n > 15} == {}


def test_every_package_has_a_map_of_its_modules():
    for path, tree in MODULES.values():
        if path.name != "__init__.py" or path.parent == ROOT:
            continue
        named = re.findall(r"^\| `(\w+)` \|", ast.get_docstring(tree) or "", re.MULTILINE)
        there = {other.stem for other in path.parent.glob("*.py")} - {"__init__"}
        there |= {other.parent.name for other in path.parent.glob("*/__init__.py")}
        assert sorted(named) == sorted(there), path


def dotted(tree):
    """Functions of a module, and methods behind the names of their classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield from (
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef)
            )


def test_the_page_for_who_changes_the_code_names_what_is_there():
    page = (ROOT.parent / "docs" / "internals.md").read_text()
    paths = {str(path.relative_to(ROOT)) for path, _ in MODULES.values()}
    folders = {f"{path.parent.relative_to(ROOT)}/" for path, _ in MODULES.values()}
    for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", page):
        is_there = any(f"/{path}".endswith(f"/{name}") for path in paths | folders)
        assert is_there or (ROOT.parent / name).exists(), name
    rows = re.findall(r"^\| [^|`]+ \| (`[^|]+`) \| (`[^|]+`) \|$", page, re.MULTILINE)
    assert len(rows) > 15
    for functions, files in rows:
        where = [ROOT / name for name in re.findall(r"`([^`]+)`", files)]
        there = {name for path in where for name in dotted(ast.parse(path.read_text()))}
        assert set(re.findall(r"`([^`]+)`", functions)) <= there, functions
    tree = page.split("```text\n")[1].split("```")[0]
    shown = set(re.findall(r"\b([a-z_]+)(?:/|\.py)(?=\s|$)", tree))
    parts = {path.name.removesuffix(".py") for path in ROOT.iterdir()} - {"__pycache__", "py.typed"}
    assert shown == parts - {"__init__", "__main__"}
