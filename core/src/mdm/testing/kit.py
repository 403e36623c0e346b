"""What a check is, which there are, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from mdm import registry
from mdm.errors import MdmError

KINDS = {"sampler": "samplers", "cache": "caches", "model": "models", "task": "tasks"}
"""Kind of plugin -> the module of this package that holds its checks."""


class NotApplicable(Exception):
    """Raised by a check that says nothing about this plugin, with the reason."""


@dataclass(frozen=True)
class Subject:
    """A plugin under test: what its entry point names, and what a check needs to use it."""

    kind: str
    name: str
    plugin: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None
    """of a task: the file its examples come from"""
    checkpoint: Path | None = None
    """of a model family: a checkpoint to load"""
    package: str = ""
    """of an installed plugin: the distribution that brings it"""

    def make(self) -> Any:
        """A new instance, with its options validated."""
        return self.plugin(self.plugin.Options.model_validate(dict(self.options)))

    @property
    def expected(self) -> Mapping[str, str]:
        """Check -> why the plugin knowingly fails it."""
        return dict(getattr(self.plugin, "expected_failures", None) or {})


@dataclass(frozen=True)
class Check:
    """One promise of a kind. ``run`` raises AssertionError where it is broken, NotApplicable where it says nothing."""

    name: str
    about: str
    run: Callable[[Subject], None]


@dataclass(frozen=True)
class Outcome:
    """What came of one check.

    expected: it failed, as the plugin says it would. unexpected: it passed although the plugin says it fails.
    """

    check: str
    about: str
    status: Literal["passed", "failed", "expected", "unexpected", "skipped"]
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.status in ("passed", "expected", "skipped")


_CHECKS: dict[str, dict[str, Check]] = {}

F = TypeVar("F", bound=Callable[[Subject], None])


def check(kind: str) -> Callable[[F], F]:
    """Add a function to the checks of a kind, under its name; its docstring's first line says what it checks."""

    def add(function: F) -> F:
        name = function.__name__
        known = _CHECKS.setdefault(kind, {})
        if name in known:
            raise ValueError(f"the check {name} of a {kind} is there already: give yours another name")
        known[name] = Check(name, (function.__doc__ or name).strip().splitlines()[0], function)
        return function

    return add


def checks(kind: str, more: Sequence[Callable[[Subject], None]] = ()) -> Iterator[Check]:
    """All checks of a kind, and ``more`` of your own.

    Raises:
        MdmError: no such kind, or a check of yours has the name of one that is there: it would silently replace it.
    """
    if kind not in KINDS:
        raise MdmError(f"a {kind} cannot be checked: only {', '.join(KINDS)}")
    import_module("mdm.testing.packages")
    import_module(f"mdm.testing.{KINDS[kind]}")
    found = {**_CHECKS[kind], **_CHECKS["every"]}
    for function in more:
        if function.__name__ in found:
            raise MdmError(f"{function.__name__} is a check of the kit: yours needs another name")
        about = (function.__doc__ or function.__name__).strip().splitlines()[0]
        found[function.__name__] = Check(function.__name__, about, function)
    yield from found.values()


def subject(kind: str, plugin: Any, **more: Any) -> Subject:
    """A plugin by its installed name, or the object itself; ``more`` are fields of ``Subject``."""
    if isinstance(plugin, Subject):
        return plugin
    if not isinstance(plugin, str):
        name = getattr(plugin, "name", None) or getattr(plugin, "__name__", type(plugin).__name__)
        return Subject(kind, str(name), plugin, **more)
    entry = registry.find(kind, plugin)
    return Subject(kind, plugin, registry.load(entry), package=entry.dist, **more)


def expectations(of: Subject, found: Sequence[Check]) -> Mapping[str, str]:
    """The failures a plugin expects.

    Raises:
        MdmError: one has no reason, or names no check.
    """
    expected, known = of.expected, {check.name for check in found}
    for name, reason in expected.items():
        if name not in known:
            raise MdmError(f"{of.kind} {of.name!r} expects to fail {name!r}: there is no such check of a {of.kind}")
        if not str(reason).strip():
            raise MdmError(f"{of.kind} {of.name!r} expects to fail {name!r} and gives no reason")
    return expected


def run(of: Subject, more: Sequence[Callable[[Subject], None]] = ()) -> Iterator[Outcome]:
    """Run every check of the subject's kind, one outcome each."""
    found = list(checks(of.kind, more))
    expected = expectations(of, found)
    for one in found:
        yield outcome(one, of, expected.get(one.name))


def outcome(one: Check, of: Subject, expected: str | None = None) -> Outcome:
    """Run one check. Whatever the plugin raises is a failure."""
    try:
        one.run(of)
    except NotApplicable as reason:
        return Outcome(one.name, one.about, "skipped", str(reason))
    except Exception as error:
        if expected:
            return Outcome(one.name, one.about, "expected", expected)
        return Outcome(one.name, one.about, "failed", said(error))
    if expected:
        return Outcome(one.name, one.about, "unexpected", f"it passes: take it out of expected_failures ({expected})")
    return Outcome(one.name, one.about, "passed")


def said(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError):
        return text or "assertion failed"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
