"""Modules import each other in one direction only, for type checkers and inside functions too."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("rag_backbone", "langgraph_dynrag", "llamaindex_prag")


def imports(root: Path, packages: tuple[str, ...]) -> dict[str, set[str]]:
    """Return each module of the packages with those of them that it imports anywhere in its code."""
    files = [file for package in packages for file in (root / package).rglob("*.py")]
    names = {".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    return {name: {m for m in _imported(name, file, names) if m != name} for name, file in names.items()}


def _imported(name: str, file: Path, known: dict[str, Path]) -> Iterator[str]:
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names = (f"{module}.{alias.name}" for alias in node.names)
            yield from (m for m in (n if n in known else module for n in names) if m in known)


def cycle(graph: dict[str, set[str]]) -> str | None:
    """Return a cycle of imports, each module importing the next; None if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return None


def test_no_modules_import_each_other_in_a_cycle():
    graph = imports(ROOT, PACKAGES)
    assert len(graph) > 100
    assert cycle(graph) is None


def test_imports_for_type_checkers_inside_functions_and_relative_ones_count(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/__init__.py").touch()
    (tmp_path / "p/a.py").write_text("if TYPE_CHECKING:\n    from p.b import B")
    (tmp_path / "p/b.py").write_text("def late():\n    import p.c, os")
    (tmp_path / "p/c.py").write_text("from . import a")
    graph = imports(tmp_path, ("p",))
    assert graph == {"p": set(), "p.a": {"p.b"}, "p.b": {"p.c"}, "p.c": {"p.a"}}
    assert cycle(graph) in {"p.a -> p.b -> p.c -> p.a", "p.b -> p.c -> p.a -> p.b", "p.c -> p.a -> p.b -> p.c"}
