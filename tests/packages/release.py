"""Make a release: versions, one commit, every package built and checked, a tag. Nothing is uploaded or pushed.

    python tests/packages/release.py 1.0.0

All of it happens in a clone; commit and tag come here only when every package is right, and the files are in
``dist/VERSION``. The changelog must have a section of that version. The table of known plugins is written anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import known_plugins
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parents[2]
LINE = re.compile(r'^version = "(.+)"$', re.MULTILINE)


def git(*args: str, cwd: Path) -> str:
    return subprocess.run(["git", *args], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


def projects(root: Path) -> list[Path]:
    return [root / "core" / "pyproject.toml", *sorted(root.glob("[pi]*s/*/pyproject.toml"))]


def refusal(root: Path, wanted: str) -> str | None:
    """Why this version cannot be released from ``root`` now, or None."""
    try:
        version = Version(wanted)
    except InvalidVersion:
        return f"{wanted} is not a version"
    if str(version) != wanted:
        return f"{wanted} is written {version}"
    versions = {LINE.search(path.read_text())[1] for path in projects(root)}  # type: ignore[index]
    if len(versions) != 1:
        return f"the packages have different versions: {', '.join(sorted(versions))}"
    if version <= Version(versions.pop()):
        return f"{wanted} is not after the version that the packages have"
    if git("status", "--porcelain", cwd=root):
        return "the working tree is not clean: commit first"
    if git("tag", "--list", f"v{wanted}", cwd=root):
        return f"there is a tag v{wanted} already"
    if not re.search(rf"^## {re.escape(wanted)}$", (root / "CHANGELOG.md").read_text(), re.MULTILINE):
        return f"CHANGELOG.md has no section '## {wanted}'"
    return None


def set_version(root: Path, version: str) -> None:
    """Write the version into every package. What they require of each other is a range that holds it."""
    for path in projects(root):
        path.write_text(LINE.sub(f'version = "{version}"', path.read_text(), count=1))


def main(version: str) -> int:
    if reason := refusal(ROOT, version):
        print(f"release: {reason}", file=sys.stderr)
        return 2
    out = ROOT / "dist" / version
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "mdm"
        git("clone", "-q", str(ROOT), str(clone), cwd=ROOT)
        for key in ("user.name", "user.email"):
            git("config", key, git("config", key, cwd=ROOT), cwd=clone)
        set_version(clone, version)
        known_plugins.write(clone)
        git("commit", "-qam", f"Release {version}", cwd=clone)
        built = subprocess.run([sys.executable, str(clone / "tests" / "packages" / "build_all.py"), str(out)])
        if built.returncode:
            print("release: the packages are not right, so nothing is tagged", file=sys.stderr)
            return 1
        git("pull", "-q", "--ff-only", str(clone), "HEAD", cwd=ROOT)
    git("tag", "-a", f"v{version}", "-m", f"mdm {version}", cwd=ROOT)
    print(f"v{version} is tagged here and its files are in {out}. To publish, by hand:")
    print(f"  git push --follow-tags && twine upload {out}/*/*")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/packages/release.py VERSION")
    sys.exit(main(sys.argv[1]))
