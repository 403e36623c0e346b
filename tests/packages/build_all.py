"""Build every package to a wheel and an sdist, and check what they hold."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def contents(path: Path) -> list[str]:
    if path.suffix == ".whl":
        return zipfile.ZipFile(path).namelist()
    return tarfile.open(path).getnames()


def main(out: Path) -> None:
    packages = [ROOT / "core", *sorted(p.parent for p in ROOT.glob("[pi]*s/*/pyproject.toml"))]
    for package in packages:
        target = out / package.name
        command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(package)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        made = sorted(target.iterdir())
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, made)], check=True)
        for path in made:
            strange = [n for n in contents(path) if n.endswith((".pyc", ".part")) or "/training/" in n]
            weights = [n for n in contents(path) if n.endswith(".safetensors")]
            if strange or bool(weights) != (package.name == "mdm-tiny"):
                raise SystemExit(f"{path.name} holds what it should not, or lacks its weights: {strange + weights}")
    print(f"{len(packages)} packages built and checked")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
