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
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import (
    Distribution,
    EntryPoint,
    MetadataPathFinder,
    PackageNotFoundError,
    distributions,
    version,
)
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
    "command": "mdm.commands",
    "hook": "mdm.hooks",
}
"""Kind of plugin -> its entry-point group."""

_BASES = {
    "model": ("mdm.models", "BaseFamily"),
    "sampler": ("mdm.protocols", "BaseSampler"),
    "cache": ("mdm.protocols", "BaseCache"),
    "task": ("mdm.protocols", "BaseTask"),
}
"""Kind -> where its base class is, which says what a plugin has. It is imported when a plugin of the kind is."""

DEPRECATED: dict[str, dict[str, str]] = {}
"""Kind -> attribute of a plugin that the next major version will not read -> what to write instead."""


@dataclass(frozen=True, order=True)
class Entry:
    """One plugin as its package announces it; ``value`` is ``module:attribute``.

    ``unmet`` is what its package requires of mdm-core and this one is not, such as ``<3,>=2``; empty where it fits.
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
    """The names one may ask for, each once."""
    return sorted({entry.name for entry in entries(kind) if not entry.unmet})


def find(kind: str, name: str) -> Entry:
    """The one installed plugin of that name, not imported.

    Raises:
        MdmError: there is none, two packages bring it, or the one that does is for another mdm-core.
    """
    named = [entry for entry in entries(kind) if entry.name == name]
    found = [entry for entry in named if not entry.unmet]
    if not found:
        raise MdmError(incompatible(named[0]) if named else _unknown(kind, name))
    if len(found) > 1:
        raise MdmError(_ambiguous(found))
    return found[0]


def resolve(kind: str, name: str) -> Any:
    """Import a plugin and return what its entry point names.

    Raises:
        MdmError: unknown, brought by two packages, or broken; the message names the package and the cause.
    """
    return load(find(kind, name))


def load(entry: Entry) -> Any:
    """Import one plugin, whatever it may do on import.

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

    Args:
        plugin: a class or an object.
        what: how the message calls it.

    Raises:
        MdmError: it names what is missing, and the base class to derive from.
    """
    if kind not in _BASES:
        return
    module, name = _BASES[kind]
    base = getattr(import_module(module), name)
    members = [member for member in {**vars(base), **get_annotations(base)} if not member.startswith("_")]
    missing = [
        member for member in members
        if not hasattr(plugin, member) or getattr(getattr(plugin, member), "__isabstractmethod__", False)
    ]  # fmt: skip
    if missing:
        shown = ", ".join(missing[:4]) + (" and more" if len(missing) > 4 else "")
        raise MdmError(f"{what} is not a {kind}, it has no {shown}: derive it from {module}.{name}")


def incompatible(entry: Entry) -> str:
    """Why a plugin built for another mdm-core is not loaded, and the way out."""
    return (
        f"{entry.kind} {entry.name!r} of package {entry.package} is for mdm-core{entry.unmet}, and this is mdm-core "
        f"{_core()}: install a release of {entry.dist} for it"
    )


def check() -> list[tuple[Entry, str | None]]:
    """Import every plugin; with each, what is wrong with it, or None."""
    return [(entry, _fault(entry)) for entry in entries()]


def _fault(entry: Entry) -> str | None:
    try:
        if entry.kind == "hook":  # hooks all run together: their names need not be unique
            load(entry)
        else:
            same = [other for other in entries(entry.kind) if other.name == entry.name and not other.unmet]
            if len(same) > 1 and not entry.unmet:
                return _ambiguous(same)
            load(entry)
    except MdmError as error:
        return str(error)
    return None


@cache
def known_plugins() -> dict[str, dict[str, str]]:
    """Kind -> plugin name -> the package that brings it, for the hint in an error.

    ``known_plugins.json`` is written by tests/packages/known_plugins.py from the packages' own metadata.
    """
    table: dict[str, dict[str, str]] = json.loads(files("mdm").joinpath("known_plugins.json").read_text("utf-8"))
    return table


_Path = tuple[tuple[str, int, int], ...]


def _path() -> _Path:
    """Where packages are looked for, when something was last installed there, and how many folders that left."""
    found = []
    for folder in sys.path:
        try:
            there = os.stat(folder or ".")
        except OSError:
            continue
        # Many a file system's clock is too coarse to tell two installations in a row apart; a new folder is one more.
        found.append((folder, there.st_mtime_ns, there.st_nlink))
    return tuple(found)


@lru_cache(maxsize=1)
def _installed(path: _Path) -> tuple[Entry, ...]:
    """All plugins, sorted; read once for as long as ``path`` is what ``_path`` says."""
    MetadataPathFinder().invalidate_caches()  # importlib's own listing of a folder goes by its time alone
    kinds = {group: (rank, name) for rank, (name, group) in enumerate(KINDS.items())}
    core = _core()
    found = {
        (kinds[point.group], Entry(kinds[point.group][1], point.name, point.value, dist.name, dist.version, unmet))
        for dist, points in _announced()
        for unmet in [_unmet(dist, core)]
        for point in points
        if point.group in kinds
    }
    return tuple(entry for _, entry in sorted(found))


def _announced() -> Iterator[tuple[Distribution, list[EntryPoint]]]:
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


def _unmet(dist: Distribution, core: str) -> str:
    """What ``dist`` requires of mdm-core that ``core`` is not.

    pip sees to it when it installs; this is for what was installed before the core changed, or past pip.
    """
    from packaging.requirements import InvalidRequirement, Requirement  # the standard's own reading of versions

    for line in (dist.requires or ()) if core else ():
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
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


def _ambiguous(found: list[Entry]) -> str:
    packages = " and ".join(entry.package for entry in found)
    return f"{found[0].kind} {found[0].name!r} is brought by several packages, {packages}: uninstall all but one"


def _cause(error: BaseException) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
