"""Build every package to a wheel and an sdist, and check what they hold and what they say of themselves.

python tests/packages/build_all.py FOLDER
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[2]
SDIST = {"src", "tests", "README.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}
"""What may lie at the top of an sdist."""
NEVER = (".pyc", ".part", ".orig", ".log")
WEIGHTS = "mdm-tiny"
"""The one package that holds weights."""


def packages() -> list[Path]:
    """Every package's folder, the core first."""
    return [ROOT / "core", *sorted(p.parent for p in ROOT.glob("[pi]*s/*/pyproject.toml"))]


def faults(path: Path, name: str, version: str) -> list[str]:
    """What is wrong with a built file."""
    module = "mdm" if name == "mdm-core" else name.replace("-", "_")
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = [n for n in wheel.namelist() if not n.endswith("/")]
            info = f"{name.replace('-', '_')}-{version}.dist-info"
            metadata = message_from_bytes(wheel.read(f"{info}/METADATA"))
        strange = [n for n in names if n.split("/")[0] not in (module, info)]
        licence = f"{info}/licenses/LICENSE"
    else:
        with tarfile.open(path) as sdist:
            names = [member.name for member in sdist.getmembers() if member.isfile()]
            top = f"{name.replace('-', '_')}-{version}"
            extracted = sdist.extractfile(f"{top}/PKG-INFO")
            metadata = message_from_bytes(extracted.read() if extracted else b"")
        strange = [n for n in names if n.split("/")[0] != top or n.split("/")[1] not in SDIST]
        licence = f"{top}/LICENSE"
    strange += [n for n in names if n.endswith(NEVER) or "/training/" in n or "__pycache__" in n]
    found = [f"holds {n}" for n in dict.fromkeys(strange)]
    weights = [n for n in names if n.endswith((".safetensors", ".bin", ".pt"))]
    if bool(weights) != (name == WEIGHTS):
        found.append(f"holds weights {weights}" if weights else "lacks its weights")
    if licence not in names:
        found.append("lacks its licence")
    for field in ("Summary", "License-Expression", "Requires-Python", "Description-Content-Type"):
        if not metadata[field]:
            found.append(f"says no {field}")
    wanted = [line.replace(" ", "") for line in metadata.get_all("Requires-Dist") or []]
    ours = [line for line in wanted if line.startswith("mdm-") and ";extra==" not in line]
    found += [f"requires {line} without an upper bound" for line in ours if "<2" not in line]
    if name != "mdm-core" and not any(line.startswith("mdm-core") for line in ours):
        found.append("does not require mdm-core")
    return found


def build(package: Path, out: Path) -> list[str]:
    """Build one package into a folder of its own, and return what is wrong with it."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    target = out / project["name"]
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(package)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    made = sorted(target.glob(f"*-{project['version']}*"))
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, made)], capture_output=True, text=True
    )
    found = [f"{path.name} {fault}" for path in made for fault in faults(path, project["name"], project["version"])]
    if checked.returncode:
        found.append(f"{project['name']}: twine says {' '.join(checked.stdout.split())}")
    if len(made) != 2:
        found.append(f"{project['name']}: {len(made)} files were built, not a wheel and an sdist")
    if (package / "LICENSE").read_text() != (ROOT / "LICENSE").read_text():
        found.append(f"{project['name']}: its LICENSE is not the house's")
    return found


def main(out: Path) -> int:
    found: list[str] = []
    for package in packages():
        print(f"building {package.name}", flush=True)
        found += build(package, out)
    for fault in found:
        print(f"wrong: {fault}")
    print(f"{len(packages())} packages built and checked, {len(found)} faults")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
