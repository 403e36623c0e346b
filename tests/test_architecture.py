"""The tree: no import circles, a small core, and tasks that import no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import mdm
import pytest

CORE = Path(mdm.__file__).parent
FILES = sorted(CORE.rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {module(path) for path in FILES}


def imports(path: Path) -> set[str]:
    """The modules of the core that a file imports, wherever in it and for whatever purpose."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in NAMES else str(node.module) for name in whole}
    return (names & NAMES) - {module(path)}


def test_no_module_imports_itself_by_way_of_others():
    """Type-checking imports are counted: a circle of types is one of ideas."""
    try:
        TopologicalSorter({module(path): imports(path) for path in FILES}).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def test_no_folder_imports_itself_by_way_of_others():
    def top(name: str) -> str:
        return name.split(".")[1] if "." in name else ""

    graph: dict[str, set[str]] = {}
    for path in FILES:
        graph.setdefault(top(module(path)), set()).update(map(top, imports(path)))
    try:
        TopologicalSorter({name: others - {name} for name, others in graph.items()}).prepare()
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def test_the_core_is_small():
    tops = {
        path.name for path in CORE.iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").is_file())
    }  # fmt: skip
    assert len(tops) <= 12, sorted(tops)
    assert not {path.split(".")[0] for path in tops} & {"bench", "testing", "view", "compare"}
    lines = {str(path.relative_to(CORE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert sum(lines.values()) < 17_500
    assert {name: count for name, count in lines.items() if count > 400} == {}


def test_the_modules_of_tasks_and_presets_import_no_torch():
    code = """
import sys
from mdm import registry
for entry in [*registry.entries("task"), *registry.entries("preset")]:
    registry.load(entry)
    assert not {"torch", "transformers"} & set(sys.modules), f"{entry.name} ({entry.value}) imports torch"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
