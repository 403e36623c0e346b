"""The lowest version of everything that our packages require, as constraints for pip: what `tox -e oldest` installs."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENT = re.compile(r"([\w-]+)(?:\[[\w,-]+\])?>=([\w.]+)(?:,<[\w.]+)?")


def floors(root: Path = ROOT) -> dict[str, str]:
    """Name -> lowest version, of every requirement of our packages and their extras that is not one of ours.

    Raises:
        SystemExit: a requirement declares none, or two packages declare different ones.
    """
    found: dict[str, str] = {}
    for path in [root / "core" / "pyproject.toml", *sorted(root.glob("[pi]*s/*/pyproject.toml"))]:
        project = tomllib.loads(path.read_text())["project"]
        for line in sum(project.get("optional-dependencies", {}).values(), project["dependencies"]):
            if line.startswith("mdm-"):
                continue
            match = REQUIREMENT.fullmatch(line)
            if match is None:
                raise SystemExit(f"{path}: {line!r} does not declare its lowest version as NAME>=VERSION")
            name, floor = match.groups()
            if found.setdefault(name, floor) != floor:
                raise SystemExit(f"{path}: {line!r}, where another package says {name}>={found[name]}")
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("".join(f"{name}=={floor}\n" for name, floor in floors().items()))
