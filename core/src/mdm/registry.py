"""The plugins that are installed.

A plugin is an entry point: a name in the group of its kind, in the metadata of an installed package. Listing reads
metadata and imports nothing; ``resolve`` imports one plugin, so that a broken one is an error only where it is asked
for.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module, metadata
from importlib.metadata import EntryPoint, MetadataPathFinder, PackageNotFoundError, distributions, version
from importlib.resources import files
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_args, get_origin

from mdm.errors import MdmError, MdmWarning, cause, suggest

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

CORE = "mdm-core"
PATIENCE = 10.0
"""Seconds that somebody else's code is given to answer where nobody asked for it by name."""
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
WORDS = {kind: {"model": "family"}.get(kind, kind) for kind in KINDS}
"""Kind of plugin -> what people call it: ``mdm.models`` are families of models, and the models are checkpoints."""

_BASES = {
    "model": ("mdm.models", "BaseFamily"),
    "sampler": ("mdm.protocols", "BaseSampler"),
    "cache": ("mdm.protocols", "BaseCache"),
    "task": ("mdm.protocols", "BaseTask"),
    "preset": ("mdm.protocols", "Preset"),
    "command": ("click", "Command"),
}
"""Kind -> where its base class is, which says what a plugin has. It is imported when a plugin of the kind is."""
_OBJECTS = ("preset", "command")
"""Kinds whose plugins are instances of the base class itself."""

_NAME = re.compile(r"\w[\w.+-]*")
"""What a plugin can be called, so that it can be written on a command line and in a list."""

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

    def __str__(self) -> str:
        return f"{WORDS[self.kind]} {self.name!r} of package {self.package}"


def entries(kind: str | None = None) -> list[Entry]:
    """All installed plugins of a kind (of every kind by default), sorted. Imports none of them."""
    return [entry for entry in _installed(_path()) if kind in (None, entry.kind)]


def names(kind: str) -> list[str]:
    """The names of a kind that a plugin is installed for, each once."""
    return sorted({entry.name for entry in entries(kind) if not entry.unmet and _NAME.fullmatch(entry.name)})


def find(kind: str, name: str) -> Entry:
    """The one installed plugin of a name, without importing it. One of mdm-core's own has its name before all others.

    Raises:
        MdmError: there is none, two packages bring it, or the one that does is for another mdm-core.
    """
    named = [entry for entry in entries(kind) if entry.name == name]
    faults = {entry: _refused(entry) for entry in named}
    for entry in named:
        if faults[entry] is None:
            if shadow := next((str(faults[other]) for other in named if other != entry and not other.unmet), None):
                warnings.warn(shadow, MdmWarning, stacklevel=2)
            return entry
    raise MdmError(str(faults[min(named, key=lambda entry: entry.unmet != "")]) if named else _unknown(kind, name))


def resolve(kind: str, name: str) -> Any:
    """Import a plugin and return what its entry point names.

    Raises:
        MdmError: unknown, brought by two packages, or broken; the message names the package and the cause.
    """
    return load(find(kind, name))


def load(entry: Entry) -> Any:
    """Import one plugin; whatever it raises on import becomes one line.

    Raises:
        MdmError: it is for another mdm-core, has another's name, does not import, or lacks what its kind must have.
    """
    if (fault := _refused(entry)) is not None:
        raise MdmError(fault)
    what = str(entry)
    try:
        plugin = EntryPoint(entry.name, entry.value, KINDS[entry.kind]).load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # which ends this import, and nothing else
        if isinstance(error, ModuleNotFoundError) and f"{entry.value.partition(':')[0]}.".startswith(f"{error.name}."):
            raise MdmError(f"{what} does not load: its module {error.name} is gone: install it again") from error
        raise MdmError(f"{what} does not load: {cause(error)}") from error
    require(entry.kind, plugin, what)
    for attribute, instead in DEPRECATED.get(entry.kind, {}).items():
        if hasattr(plugin, attribute):
            warnings.warn(f"{what} has {attribute}, which is deprecated: {instead}", DeprecationWarning, stacklevel=2)
    return plugin


def require(kind: str, plugin: Any, what: str) -> None:
    """Refuse a plugin that lacks a member of its kind's base class, leaves an abstract one undefined, or has another
    type there.

    Raises:
        MdmError: it calls the plugin, a class or an object, ``what``, and names what is wrong and the base class.
    """
    if kind not in _BASES:
        return
    module, name = _BASES[kind]
    base = getattr(import_module(module), name)
    if kind in _OBJECTS and not isinstance(plugin, base):
        raise MdmError(f"{what} is not a {kind}: it must be an instance of {module}.{name}")
    if kind == "command":
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
    for member in members:
        value = getattr(plugin, member)
        if member in _types(base):
            if not isinstance(value, property) and (fault := _mistyped(_types(base)[member], value)):
                raise MdmError(f"{what}: its {member} is {_short(value)}, {fault}")
        elif callable(getattr(base, member)) and not callable(value):
            raise MdmError(f"{what}: its {member} is {_short(value)}, and should be a method")


@cache
def _types(base: type) -> dict[str, TypeAdapter[Any]]:
    """The types of a base class's attributes."""
    from pydantic import TypeAdapter  # slow to import, and not needed to list what is there

    kinds: dict[str, Any] = get_annotations(base, eval_str=True)
    plain = {name: get_args(kind)[0] if get_origin(kind) is ClassVar else kind for name, kind in kinds.items()}
    return {name: TypeAdapter(kind) for name, kind in plain.items()}


def _mistyped(kind: TypeAdapter[Any], value: Any) -> str | None:
    from pydantic import ValidationError

    try:
        kind.validate_python(value, strict=True)
    except ValidationError as error:
        return str(error.errors(include_url=False)[0]["msg"]).replace("Input should", "and should")
    return None


def _short(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())


def incompatible(entry: Entry) -> str:
    """The error line for a plugin that is built for another mdm-core."""
    ours = f"this is {CORE} {_core()}"
    return f"{entry} is for {CORE}{entry.unmet}, and {ours}: install a release of {entry.dist} for it"


def begin(call: Callable[[], T]) -> Future[T]:
    """Call somebody else's code in a thread, which may hang, or raise whatever it likes, and harms nobody else."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


def in_time(what: str, call: Callable[[], T]) -> T:
    """What ``call`` returns.

    Raises:
        MdmError: it begins with ``what`` and says what was raised, or that nothing came within ``PATIENCE``.
    """
    answer = begin(call)
    wait([answer], PATIENCE)
    if not answer.done():
        raise MdmError(f"{what} has not answered in {PATIENCE:g} seconds")
    if (error := answer.exception()) is not None:
        raise error if isinstance(error, MdmError) else MdmError(f"{what}: {cause(error)}") from error
    return answer.result()


def check() -> list[tuple[Entry, str | None]]:
    """Import every plugin; each with the error line of what is wrong with it, or None."""
    return [(entry, _fault(entry)) for entry in entries()]


def _fault(entry: Entry) -> str | None:
    try:
        in_time(f"{entry} does not load", lambda: load(entry))
    except MdmError as error:
        return str(error)
    return None


def _refused(entry: Entry) -> str | None:
    """Why a plugin is not used, as far as metadata tell."""
    if entry.unmet:
        return incompatible(entry)
    if not _NAME.fullmatch(entry.name):
        return f"{entry}: a name is made of letters, digits and _ . + -"
    if not EntryPoint.pattern.match(entry.value):
        return f"{entry}: its entry point {entry.value!r} is not module:attribute"
    # Hooks all run together: their names need not be unique, but for those of one package.
    same = [
        other for other in entries(entry.kind)
        if other.name == entry.name and not other.unmet and (entry.kind != "hook" or other.dist == entry.dist)
    ]  # fmt: skip
    if len(same) < 2 or entry.dist == CORE:
        return None
    if any(other.dist == CORE for other in same):
        return f"{entry} is set aside: {CORE} itself has a {WORDS[entry.kind]} of that name"
    packages = " and ".join(other.package for other in same)
    return f"{WORDS[entry.kind]} {entry.name!r} is brought by several packages, {packages}: uninstall all but one"


def raised_by_plugin(error: BaseException) -> str | None:
    """Which function of which plugin package an error comes from; None where it passed none but the core's."""
    dists = {
        entry.value.partition(":")[0].partition(".")[0]: entry.package for entry in entries() if entry.dist != CORE
    }
    culprit = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        if package := dists.get(module.partition(".")[0]):
            culprit = f"{module}.{frame.f_code.co_qualname}, line {line}, of package {package},"
    return culprit


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
    _unreadable.clear()
    MetadataPathFinder().invalidate_caches()  # importlib's own listing of a folder goes by its time alone
    kinds, core = {group: kind for kind, group in KINDS.items()}, _core()
    plugins: set[Entry] = set()
    seen: set[str] = set()  # of two packages of a name, the first on the path counts
    for dist in distributions():
        # ``importlib.metadata.entry_points`` reads the metadata of all, and one unreadable file makes it raise.
        try:
            if "mdm." not in (dist.read_text("entry_points.txt") or ""):
                continue
            release, unmet = str(dist.version or ""), _unmet(dist, core)
            normal = dist.name.lower().replace("_", "-").replace(".", "-")
            of_dist = {Entry(kinds[point.group], point.name, point.value, dist.name, release, unmet)
                       for point in dist.entry_points if point.group in kinds}  # fmt: skip
        except Exception as error:
            _unreadable[str(getattr(dist, "_path", dist))] = cause(error)
            continue  # a package with broken metadata announces nothing
        if normal not in seen:
            seen.add(normal)
            plugins |= of_dist
    return tuple(sorted(plugins, key=lambda entry: (list(KINDS).index(entry.kind), entry)))


_unreadable: dict[str, str] = {}
"""As the last listing has found it."""


def unreadable() -> dict[str, str]:
    """Folder of an installed package whose metadata cannot be read, so that it announces nothing -> why."""
    entries()
    return {path: f"the metadata of {path} cannot be read: {why}" for path, why in sorted(_unreadable.items())}


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
        return f"{WORDS[kind]} {name!r} comes with the package {brought[name]}, which is not installed"
    hint = suggest(name, installed) or suggest(name, brought)
    return f"unknown {WORDS[kind]} {name!r}.{hint} Installed: {', '.join(installed) or 'none'}"
