"""docs/plugins.md: what is written by hand stays, what lies between its marks is generated from the sources.

    python tests/support/plugin_reference.py

writes it anew; plugins/mdm-testing/tests/test_plugin_reference.py fails where it is stale.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

from mdm import registry
from mdm_testing import checks

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
PROTOCOLS = "mdm.protocols."
SHOWN = {
    "sampler": {PROTOCOLS + "sampler": ["BaseSampler", "Commit", "Evaluate", "CandidateScores"]},
    "state": {
        PROTOCOLS + "state": ["State"], PROTOCOLS + "scores": ["Stats", "Scores"], PROTOCOLS + "rowwise": ["Rowwise"],
    },
    "draws": {PROTOCOLS + "draws": ["Draws"]},
    "functions": {PROTOCOLS + "scores": ["ranks", "top_k"]},
    "cache": {PROTOCOLS + "cache": ["BaseCache", "Plan", "LayerCache", "Seen", "AttentionMap"]},
    "task": {PROTOCOLS + "task": ["BaseTask", "Example", "Prompt", "Message", "Piece"]},
    "preset": {PROTOCOLS + "preset": ["Preset", "TaskPreset"]},
    "family": {"mdm.models.family": ["BaseFamily"], PROTOCOLS + "model": ["ModelSpec", "Network", "Autoregressive"]},
    "model": {"mdm.models.model": ["Model"]},
    "options": {PROTOCOLS + "options": ["NoOptions"]},
    "hooks": {PROTOCOLS + "hooks": ["Hooks"]},
}  # fmt: skip
"""Mark -> module -> what of it is shown."""


def signatures(shown: dict[str, list[str]]) -> str:
    """The definitions as they stand in the sources, without the bodies of functions and what begins with _."""
    parts = []
    for module, names in shown.items():
        source = inspect.getsource(importlib.import_module(module))
        found = {n.name: n for n in ast.parse(source).body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        parts += [f"```python\n{_bare(found[name], source.splitlines())}\n```" for name in names]
    return "\n\n".join(parts)


def _bare(node: ast.ClassDef | ast.FunctionDef, lines: list[str]) -> str:
    kept = {i: lines[i - 1] for i in range(_first(node), node.end_lineno + 1)}
    for part in [node] if isinstance(node, ast.FunctionDef) else node.body:
        if not isinstance(part, ast.FunctionDef):
            continue
        if part.name.startswith("_") and part.name != "__init__":
            gone = range(_first(part), part.end_lineno + 1)
        else:
            body = part.body[0]
            documented = ast.get_docstring(part) is not None
            last = body.end_lineno if documented else body.lineno - 1
            gone = range(last + 1, part.end_lineno + 1)
            if body.lineno == part.lineno:
                continue  # its body is ... already
            kept[last] += f"\n{' ' * body.col_offset}..." if documented else " ..."
        for i in gone:
            del kept[i]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(kept.values())).rstrip()


def _first(node: ast.ClassDef | ast.FunctionDef) -> int:
    return min([node.lineno, *(d.lineno for d in node.decorator_list)])


def kinds() -> str:
    lines = ["| kind | entry-point group |", "|---|---|"]
    return "\n".join([*lines, *(f"| {kind} | `{group}` |" for kind, group in registry.KINDS.items())])


def promises() -> str:
    parts = []
    for kind in ("sampler", "cache", "model", "task", "preset"):
        lines = [f"### A {kind}", "", "| check | what it holds |", "|---|---|"]
        parts.append("\n".join([*lines, *(f"| `{c.name}` | {_cell(c.about)} |" for c in checks(kind))]))
    return "\n\n".join(parts)


def faults() -> str:
    from planted_faults import FAULTS

    lines = ["| kind | fault | caught by |", "|---|---|---|"]
    for kind, plugin, check in FAULTS:
        about = inspect.getdoc(plugin) or ""
        line = f"| {kind} | {_cell(about.splitlines()[0])} | `{check}` |"
        lines += [] if line in lines else [line]
    leak = (
        "| cache | A candidate of a lookahead is written into the store. | `is_read_only_while_a_sampler_looks_ahead` |"
    )
    return "\n".join([*lines, leak])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page(text: str) -> str:
    """``text`` with every generated part anew."""
    parts = {mark: signatures(shown) for mark, shown in SHOWN.items()}
    parts |= {"kinds": kinds(), "checks": promises(), "faults": faults()}
    for mark, part in parts.items():
        pattern = re.compile(rf"(<!-- generated: {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda m, part=part: f"{m[1]}\n{part}\n\n{m[2]}", text)
        assert count == 1, f"docs/plugins.md has {count} places for {mark}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
