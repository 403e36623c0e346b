"""Write ``known_plugins.json``, from which errors name the package that brings a plugin which is not installed.

    python tests/packages/known_plugins.py

The table is read from the entry points in the packages' own pyproject files; ``release.py`` writes it anew.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from mdm import registry

ROOT = Path(__file__).parents[2]


def table(root: Path) -> dict[str, dict[str, str]]:
    """Kind -> plugin name -> package, of all packages but the core."""
    kinds = {group: kind for kind, group in registry.KINDS.items() if kind not in ("hook", "finding")}
    known: dict[str, dict[str, str]] = {kind: {} for kind in kinds.values()}
    for path in sorted(root.glob("[pi]*s/*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        for group, names in project.get("entry-points", {}).items():
            if group in kinds:
                known[kinds[group]] |= dict.fromkeys(names, project["name"])
    return {kind: dict(sorted(names.items())) for kind, names in known.items()}


def write(root: Path) -> None:
    """Write the table into the core in ``root``."""
    path = root / "core" / "src" / "mdm" / "known_plugins.json"
    lines = (f"{json.dumps(kind)}: {json.dumps(names)}" for kind, names in table(root).items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    write(ROOT)
