"""The structure of the packages, read from the syntax tree: `python tests/house.py` prints its figures.

A module is a file of one of the five packages. An arrow goes from a module to each module that it imports, wherever
the import stands. A folder is the directory a module lies in. `__init__` files are counted apart.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("data", "models", "strategies", "orchestrator", "experiments")

Arrows = Mapping[str, frozenset[str]]


def module_files(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the packages under `root`."""
    found: dict[str, Path] = {}
    for layer in LAYERS:
        for path in sorted((root / layer).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(source: str) -> set[str]:
    """Dotted names that a source imports, wherever the import stands: modules, and names taken out of modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def arrows(root: Path) -> dict[str, frozenset[str]]:
    """Module -> the modules of this project that it imports. `from folder import module` is an arrow to the module."""
    files = module_files(root)
    found = {}
    for name, path in files.items():
        imported = {each for each in imported_names(path.read_text(encoding="utf-8")) if each in files}
        packages = {each for each in imported if files[each].name == "__init__.py"}
        through = {each for each in packages if any(other.startswith(f"{each}.") for other in imported)}
        found[name] = frozenset(imported - through - {name})
    return found


def circles(graph: Arrows) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others, each sorted (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return groups


def folder_of(name: str, files: Mapping[str, Path], root: Path) -> str:
    """The directory of a module, relative to `root`."""
    return files[name].parent.relative_to(root).as_posix()


def two_way_folders(graph: Arrows, files: Mapping[str, Path], root: Path) -> list[tuple[str, str]]:
    """Pairs of folders with arrows in both directions."""
    between: set[tuple[str, str]] = set()
    for name, others in graph.items():
        for other in others:
            pair = folder_of(name, files, root), folder_of(other, files, root)
            if pair[0] != pair[1]:
                between.add(pair)
    return sorted((a, b) for a, b in between if a < b and (b, a) in between)


def callers(graph: Arrows) -> dict[str, set[str]]:
    """Module -> the modules that import it."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, others in graph.items():
        for other in others:
            found[other].add(name)
    return found


def external_users(package: str, files: Mapping[str, Path]) -> list[str]:
    """Modules that import a package from outside this project."""
    return [
        name
        for name, path in files.items()
        if any(each.partition(".")[0] == package for each in imported_names(path.read_text(encoding="utf-8")))
    ]


def report(root: Path) -> Iterable[str]:
    """The figures as lines."""
    files, graph = module_files(root), arrows(root)
    rooms = [path for path in files.values() if path.name != "__init__.py"]
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in rooms]
    single = [name for name, users in callers(graph).items() if len(users) == 1]
    yield (
        f"modules: {len(rooms)} (and {len(files) - len(rooms)} __init__), lines: {sum(lengths)}, "
        f"median: {statistics.median(lengths):.0f}"
    )
    groups = circles(graph)
    yield f"circles: {len(groups)}"
    yield from (f"  {' '.join(group)}" for group in groups)
    pairs = two_way_folders(graph, files, root)
    yield f"folder pairs with arrows both ways: {len(pairs)}"
    for first, second in pairs:
        yield f"  {first} <-> {second}"
        for a, b in ((first, second), (second, first)):
            for name, others in sorted(graph.items()):
                for other in sorted(others):
                    if folder_of(name, files, root) == a and folder_of(other, files, root) == b:
                        yield f"    {name} -> {other}"
    yield f"modules with a single caller: {len(single)}"
    for package in ("ray", "mlflow"):
        folders = sorted({folder_of(name, files, root) for name in external_users(package, files)})
        yield f"{package} is imported in: {', '.join(folders) or 'no folder'}"


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)))
