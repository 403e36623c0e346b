"""The plugins that are installed.

A plugin is an entry point: a name in the group of its kind, in the metadata of an installed package. Listing reads
metadata and imports nothing; ``resolve`` imports one plugin, so that a broken one is an error only where it is asked
for.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module, metadata
from importlib.metadata import EntryPoint, MetadataPathFinder, PackageNotFoundError, distributions, version
from importlib.resources import files
from inspect import get_annotations
from typing import Any

from mdm.errors import MdmError, suggest

KINDS = {
    "model": "mdm.models",
    "checkpoint": "mdm.checkpoints",
    "sampler": "mdm.samplers",
    "cache": "mdm.caches",
    "task": "mdm.tasks",
    "preset": "mdm.presets",
    "command": "mdm.commands",
    "hook": "mdm.hooks",
    "finding": "mdm.findings",
}
"""Kind of plugin -> its entry-point group."""

_BASES = {
    "model": ("mdm.models", "BaseFamily"),
    "sampler": ("mdm.protocols", "BaseSampler"),
    "cache": ("mdm.protocols", "BaseCache"),
    "task": ("mdm.protocols", "BaseTask"),
    "preset": ("mdm.protocols", "Preset"),
}
"""Kind -> where its base class is, which says what a plugin has. It is imported when a plugin of the kind is."""

DEPRECATED: dict[str, dict[str, str]] = {}
"""Kind -> attribute of a plugin that the next major version will not read -> what to write instead."""


@dataclass(frozen=True, order=True)
class Entry:
    """One plugin as its package announces it; ``value`` is ``module:attribute``.

    ``unmet`` is the requirement on mdm-core that the running core does not meet, such as ``<3,>=2``, or empty.
    """

    kind: str
    name: str
    value: str
    dist: str
    version: str
    unmet: str = ""

    @property
    def package(self) -> str:
        return f"{self.dist} {self.version}"


def entries(kind: str | None = None) -> list[Entry]:
    """All installed plugins of a kind (of every kind by default), sorted. Imports none of them."""
    return [entry for entry in _installed(_path()) if kind in (None, entry.kind)]


def names(kind: str) -> list[str]:
    """The names of a kind that can be resolved, each once."""
    return sorted({entry.name for entry in entries(kind) if not entry.unmet})


def find(kind: str, name: str) -> Entry:
    """The one installed plugin of a name, without importing it.

    Raises:
        MdmError: there is none, two packages bring it, or the one that does is for another mdm-core.
    """
    named = [entry for entry in entries(kind) if entry.name == name]
    usable = [entry for entry in named if not entry.unmet]
    if not usable:
        raise MdmError(incompatible(named[0]) if named else _unknown(kind, name))
    if len(usable) > 1:
        raise MdmError(_ambiguous(usable))
    return usable[0]


def resolve(kind: str, name: str) -> Any:
    """Import a plugin and return what its entry point names.

    Raises:
        MdmError: unknown, brought by two packages, or broken; the message names the package and the cause.
    """
    return load(find(kind, name))


def load(entry: Entry) -> Any:
    """Import one plugin; whatever it raises on import becomes one line.

    Raises:
        MdmError: it is for another mdm-core, does not import, or lacks what its kind must have.
    """
    if entry.unmet:
        raise MdmError(incompatible(entry))
    what = f"{entry.kind} {entry.name!r} of package {entry.package}"
    try:
        plugin = EntryPoint(entry.name, entry.value, KINDS[entry.kind]).load()
    except (Exception, SystemExit) as error:
        raise MdmError(f"{what} does not load: {_cause(error)}") from error
    require(entry.kind, plugin, what)
    for attribute, instead in DEPRECATED.get(entry.kind, {}).items():
        if hasattr(plugin, attribute):
            warnings.warn(f"{what} has {attribute}, which is deprecated: {instead}", DeprecationWarning, stacklevel=2)
    return plugin


def require(kind: str, plugin: Any, what: str) -> None:
    """Refuse a plugin that lacks a member of its kind's base class, or leaves an abstract one undefined.

    Raises:
        MdmError: it calls the plugin, a class or an object, ``what``, and names what is missing and the base class.
    """
    if kind not in _BASES:
        return
    module, name = _BASES[kind]
    base = getattr(import_module(module), name)
    if kind == "preset":
        if not isinstance(plugin, base):
            raise MdmError(f"{what} is not a preset: it must be an instance of {module}.{name}")
        return
    members = [member for member in {**vars(base), **get_annotations(base)} if not member.startswith("_")]
    missing = [
        member for member in members
        if not hasattr(plugin, member) or getattr(getattr(plugin, member), "__isabstractmethod__", False)
    ]  # fmt: skip
    if kind == "task":  # which of the two it needs follows from what it asks for
        grades = "grade_image" if getattr(plugin, "answers", "text") == "image" else "grade"
        missing += [grades] if getattr(plugin, grades, None) is getattr(base, grades) else []
    if missing:
        shown = ", ".join(missing[:4]) + (" and more" if len(missing) > 4 else "")
        raise MdmError(f"{what} is not a {kind}, it has no {shown}: derive it from {module}.{name}")


def incompatible(entry: Entry) -> str:
    """The error line for a plugin that is built for another mdm-core."""
    return (
        f"{entry.kind} {entry.name!r} of package {entry.package} is for mdm-core{entry.unmet}, and this is mdm-core "
        f"{_core()}: install a release of {entry.dist} for it"
    )


def check() -> list[tuple[Entry, str | None]]:
    """Import every plugin; each with the error line of what is wrong with it, or None."""
    return [(entry, _fault(entry)) for entry in entries()]


def _fault(entry: Entry) -> str | None:
    same = [other for other in entries(entry.kind) if other.name == entry.name and not other.unmet]
    # Hooks all run together: their names need not be unique.
    if len(same) > 1 and entry.kind != "hook" and not entry.unmet:
        return _ambiguous(same)
    try:
        load(entry)
    except MdmError as error:
        return str(error)
    return None


@cache
def known_plugins() -> dict[str, dict[str, str]]:
    """Kind -> plugin name -> its package, for the hint in an error; tests/packages/known_plugins.py writes the file."""
    table: dict[str, dict[str, str]] = json.loads(files("mdm").joinpath("known_plugins.json").read_text("utf-8"))
    return table


_Path = tuple[tuple[str, int, int], ...]


def _path() -> _Path:
    """The folders of ``sys.path``, with what changes in each when a package is installed: its time and its links."""
    folders = []
    for folder in sys.path:
        with suppress(OSError):
            status = os.stat(folder or ".")
            # The clock of many file systems is too coarse to tell two installations apart; the second adds a link.
            folders.append((folder, status.st_mtime_ns, status.st_nlink))
    return tuple(folders)


@lru_cache(maxsize=1)
def _installed(path: _Path) -> tuple[Entry, ...]:
    """All plugins, sorted; read again only when ``_path`` has changed."""
    MetadataPathFinder().invalidate_caches()  # importlib's own listing of a folder goes by its time alone
    kinds, core = {group: kind for kind, group in KINDS.items()}, _core()
    plugins = {
        Entry(kinds[point.group], point.name, point.value, dist.name, dist.version, unmet)
        for dist, points in _announced()
        for unmet in [_unmet(dist, core)]
        for point in points
        if point.group in kinds
    }
    return tuple(sorted(plugins, key=lambda entry: (list(KINDS).index(entry.kind), entry)))


def _announced() -> Iterator[tuple[metadata.Distribution, list[EntryPoint]]]:
    """The entry points of every distribution that has some of ours, the first of a name on the path winning.

    ``importlib.metadata.entry_points`` reads the metadata of all, and one unreadable file anywhere makes it raise.
    """
    seen: set[str] = set()
    for dist in distributions():
        try:
            if "mdm." not in (dist.read_text("entry_points.txt") or ""):
                continue
            name, points = dist.name.lower().replace("_", "-").replace(".", "-"), list(dist.entry_points)
        except Exception:
            continue  # a package with broken metadata announces nothing
        if name not in seen:
            seen.add(name)
            yield dist, points


def _core() -> str:
    """The version of the running core; empty where it runs from a folder that is not installed."""
    try:
        return version("mdm-core")
    except PackageNotFoundError:
        return ""


def _unmet(dist: metadata.Distribution, core: str) -> str:
    """The requirement of ``dist`` on mdm-core that version ``core`` does not meet, or an empty text.

    pip checks this when it installs. This finds packages that were installed before the core changed, or without pip.
    """
    from packaging.requirements import InvalidRequirement, Requirement  # versions as PEP 440 orders them

    for line in (dist.requires or ()) if core else ():
        with suppress(InvalidRequirement):
            wanted = Requirement(line)
            ours = wanted.name.lower().replace("_", "-") == "mdm-core" and wanted.marker is None
            if ours and not wanted.specifier.contains(core, prereleases=True):
                return str(wanted.specifier)
    return ""


def _unknown(kind: str, name: str) -> str:
    installed, brought = names(kind), known_plugins().get(kind, {})
    if name in brought:
        return f"{kind} {name!r} comes with the package {brought[name]}, which is not installed"
    hint = suggest(name, installed) or suggest(name, brought)
    return f"unknown {kind} {name!r}.{hint} Installed: {', '.join(installed) or 'none'}"


def _ambiguous(same: list[Entry]) -> str:
    packages = " and ".join(entry.package for entry in same)
    return f"{same[0].kind} {same[0].name!r} is brought by several packages, {packages}: uninstall all but one"


def _cause(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
