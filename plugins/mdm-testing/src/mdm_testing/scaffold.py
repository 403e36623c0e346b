"""Writes a package for a new plugin from the templates beside this file: it installs and conforms at once."""

from __future__ import annotations

import keyword
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
    """A kind of plugin that there is a template of."""

    about: str
    """what the template's plugin does"""
    use: str
    """the command that uses it"""
    suffix: str
    """what its class is called behind the plugin's name, where the name alone cannot be a class"""


KINDS = {
    "sampler": Kind("Commits the masks that the model is most confident of.", "mdm run --sampler {name}", "Sampler"),
    "cache": Kind("Keeps the keys and values of what lies before the block.", "mdm run --cache {name}", "Cache"),
    "model": Kind("Masked diffusion models on transformers' own Llama.", "mdm run --model FOLDER", "Family"),
    "task": Kind("Words to write backwards.", "mdm run --task {name} --model MODEL", "Task"),
}


def create(kind: str, name: str, parent: Path) -> list[Path]:
    """Write the package ``mdm-NAME`` into ``parent``; returns its files. All of it is written, or nothing.

    Raises:
        MdmError: the name cannot be a package's, or a plugin or package has it already; the folder exists.
    """
    package = f"mdm-{name}"
    folder = parent / package
    if not NAME.fullmatch(name) or name.startswith("mdm-"):
        raise MdmError(
            f"{name!r} cannot be the name of a {kind}: use small letters, digits and single hyphens, such as my-{kind}"
        )
    _refuse_taken(kind, name)
    if folder.exists():
        raise MdmError(f"{folder} is there already: choose another name, or a folder with --into")
    if not parent.is_dir():
        raise MdmError(f"{parent} is not a folder")
    files = _files(kind, name)
    with os_errors_as_mdm_errors(folder, "write"):
        part = Path(tempfile.mkdtemp(prefix=f".{package}.", dir=parent))
        try:
            for path, text in files.items():
                (part / path).parent.mkdir(parents=True, exist_ok=True)
                (part / path).write_text(text, encoding="utf-8")
            part.chmod(0o755)
            os.rename(part, folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return [folder / path for path in files]


def _refuse_taken(kind: str, name: str) -> None:
    """One name means one plugin whatever its kind, so that ``-o NAME.OPTION`` and ``mdm check NAME`` are clear."""
    package = f"mdm-{name}"
    for entry in registry.entries():
        if entry.name == name and entry.kind != "hook":
            raise MdmError(
                f"{kind} {name!r} is taken: {entry.package}, which is installed, brings a {entry.kind} of that name; "
                "choose another name"
            )
    ours = {name for names in registry.known_plugins().values() for name in names.values()}
    if package in ours | {"mdm-core"}:
        raise MdmError(f"{kind} {name!r} would be the package {package}, which exists already: choose another name")


def _class_name(kind: str, name: str, *templates: str) -> str:
    """The plugin's name as a class, with the kind behind it where Python or the templates give it another meaning."""
    title = "".join(word.capitalize() for word in name.split("-"))
    words = {*re.findall(r"\w+", " ".join(templates)), *keyword.kwlist}
    return title + KINDS[kind].suffix if words & {title, f"{title}Options"} else title


def _files(kind: str, name: str) -> dict[str, str]:
    """Path in the package -> text."""
    module = f"mdm_{name.replace('-', '_')}"
    sources = {
        "pyproject.toml": "package/pyproject.toml.in",
        "README.md": "package/README.md.in",
        "LICENSE": "package/LICENSE.in",
        ".gitignore": "package/gitignore.in",
        ".github/workflows/test.yml": "package/test.yml.in",
        f"src/{module}/__init__.py": f"{kind}/module.py.in",
        f"tests/test_{module.removeprefix('mdm_')}.py": f"{kind}/test.py.in",
    }
    templates = {path: (TEMPLATES / source).read_text(encoding="utf-8") for path, source in sources.items()}
    title = _class_name(kind, name, *(text for path, text in templates.items() if path.endswith(".py")))
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
        "core": _range("mdm-core"),
        "testing": _range("mdm-testing"),
    }
    return {path: _filled(text, values) for path, text in templates.items()}


def _filled(text: str, values: Mapping[str, str]) -> str:
    for key, value in values.items():
        text = text.replace("{{ " + key + " }}", value)
    return text


def _range(package: str) -> str:
    """The versions of ours that a new package requires: the installed one and later ones of its major version."""
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        raise MdmError(f"{package} runs from a folder that is not installed: pip install -e it first") from None
    return f">={version},<{int(version.split('.')[0]) + 1}"
