"""A whole package for a new plugin, from the templates beside this file: it installs and conforms at once."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mdm import registry
from mdm.errors import MdmError
from mdm.runs.files import os_errors_as_mdm_errors

TEMPLATES = Path(__file__).parent / "templates"

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class Kind(NamedTuple):
    """What the template of a kind says of it."""

    about: str
    use: str


KINDS = {
    "sampler": Kind("Commits the masks that the model is most confident of.", "mdm run --sampler {name}"),
    "cache": Kind("Keeps the keys and values of what lies before the block.", "mdm run --cache {name}"),
    "model": Kind("Masked diffusion models on transformers' own Llama.", "mdm run --model FOLDER"),
    "task": Kind("Words to write backwards.", "mdm run --task {name} --model MODEL"),
}


def create(kind: str, name: str, parent: Path) -> list[Path]:
    """Write the package ``mdm-NAME`` into ``parent``; returns its files. All of it is written, or nothing.

    Raises:
        MdmError: a name that cannot be a package's, or that is taken; a folder that is there already.
    """
    package = f"mdm-{name}"
    folder = parent / package
    if not NAME.fullmatch(name) or name.startswith("mdm-"):
        raise MdmError(
            f"{name!r} cannot be the name of a {kind}: use small letters, digits and single hyphens, such as my-{kind}"
        )
    taken = [entry for entry in registry.entries(kind) if entry.name == name]
    if taken:
        raise MdmError(f"{kind} {name!r} is taken by {taken[0].package}, which is installed: choose another name")
    if folder.exists():
        raise MdmError(f"{folder} is there already: choose another name, or a folder with --into")
    if not parent.is_dir():
        raise MdmError(f"{parent} is not a folder")
    files = _files(kind, name)
    with os_errors_as_mdm_errors(folder, "write"):
        part = Path(tempfile.mkdtemp(prefix=f".{package}.", dir=parent))
        try:
            for place, text in files.items():
                (part / place).parent.mkdir(parents=True, exist_ok=True)
                (part / place).write_text(text, encoding="utf-8")
            part.chmod(0o755)
            os.rename(part, folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return [folder / place for place in files]


def _files(kind: str, name: str) -> dict[str, str]:
    """Place in the package -> text."""
    module = f"mdm_{name.replace('-', '_')}"
    title = "".join(word.capitalize() for word in name.split("-"))
    values = {
        "kind": kind,
        "name": name,
        "package": f"mdm-{name}",
        "module": module,
        "Class": title,
        "object": "FAMILY" if kind == "model" else title,
        "group": registry.KINDS[kind],
        "about": KINDS[kind].about,
        "use": KINDS[kind].use.format(name=name),
        "core": _core(),
    }
    places = {
        "pyproject.toml": "package/pyproject.toml.in",
        "README.md": "package/README.md.in",
        "LICENSE": "package/LICENSE.in",
        ".gitignore": "package/gitignore.in",
        ".github/workflows/test.yml": "package/test.yml.in",
        f"src/{module}/__init__.py": f"{kind}/module.py.in",
        f"tests/test_{module.removeprefix('mdm_')}.py": f"{kind}/test.py.in",
    }
    return {
        place: _filled((TEMPLATES / source).read_text(encoding="utf-8"), values) for place, source in places.items()
    }


def _filled(text: str, values: Mapping[str, str]) -> str:
    for key, value in values.items():
        text = text.replace("{{ " + key + " }}", value)
    return text


def _core() -> str:
    """The versions of mdm-core that a package written now is for: this one and later ones of its major version."""
    try:
        version = metadata.version("mdm-core")
    except metadata.PackageNotFoundError:
        raise MdmError("mdm-core runs from a folder that is not installed: pip install -e core") from None
    return f">={version},<{int(version.split('.')[0]) + 1}"
