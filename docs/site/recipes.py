"""The tables of docs/recipes.md, from the installed presets.

    python docs/site/recipes.py

writes them anew (into another file if one is named); tests/test_docs.py fails where they are stale.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mdm import registry
from mdm.cli.plugins import settings_text
from mdm.protocols import Preset

PAGE = Path(__file__).parents[1] / "recipes.md"
BEGIN, END = "<!-- presets: begin (python docs/site/recipes.py) -->\n", "<!-- presets: end -->"
HEAD = "| task | further settings | published | source |\n|---|---|---:|---|\n"


def tables() -> str:
    return "\n".join(section(entry.name, entry.dist, registry.load(entry)) for entry in registry.entries("preset"))


def section(name: str, package: str, preset: Preset) -> str:
    meant = f"for {' and '.join(preset.families)} models" if preset.families else "for any masked diffusion model"
    lines = [
        f"| {task} | {settings_text({**given.settings, **given.options}) or 'none'} | {given.published} | "
        f"{given.source or preset.source} |\n"
        for task, given in preset.tasks.items()
    ]
    general = f"Always: {settings_text(preset.settings)}."
    return f"### `{name}`\n\n{preset.about} From `{package}`, {meant}.\n\n{general}\n\n{HEAD}{''.join(lines)}"


def page() -> str:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + tables() + "\n" + END + after


if __name__ == "__main__":
    Path(*sys.argv[1:2] or [PAGE]).write_text(page(), encoding="utf-8")
