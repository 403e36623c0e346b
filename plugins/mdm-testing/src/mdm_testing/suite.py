"""Which checks there are, and how they are run against a plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from mdm import registry
from mdm.errors import MdmError

from mdm_testing.kit import CHECKS, Check, NotApplicable, Outcome, Subject, one_line

KINDS = {
    "sampler": ("samplers", "revisers", "elsewhere"), "cache": ("caches",), "model": ("models",), "task": ("tasks",),
    "preset": ("presets",),
}  # fmt: skip
"""Kind of plugin -> the modules of this package that hold its checks."""


def checks(kind: str, more: Sequence[Callable[[Subject], None]] = ()) -> Iterator[Check]:
    """All checks of a kind, and ``more`` of your own.

    Raises:
        MdmError: there are no checks of such a kind, or one of yours would replace one of the kit's.
    """
    if kind not in KINDS:
        raise MdmError(f"a {kind} cannot be checked: only {', '.join(KINDS)}")
    for module in ("packages", *KINDS[kind]):
        import_module(f"mdm_testing.{module}")
    known = {**CHECKS[kind], **CHECKS["every"]}
    for function in more:
        check = Check.of(function)
        if check.name in known:
            raise MdmError(f"{check.name} is a check of the kit: yours needs another name")
        known[check.name] = check
    yield from known.values()


def subject(kind: str, plugin: Any, **more: Any) -> Subject:
    """A plugin by its installed name, or the object itself; ``more`` are fields of ``Subject``."""
    if isinstance(plugin, Subject):
        return plugin
    if not isinstance(plugin, str):
        name = getattr(plugin, "name", None) or getattr(plugin, "__name__", type(plugin).__name__)
        return Subject(kind, str(name), plugin, **more)
    entry = registry.find(kind, plugin)
    return Subject(kind, plugin, registry.load(entry), package=entry.dist, **more)


def expectations(of: Subject, checks: Sequence[Check]) -> Mapping[str, str]:
    """The failures a plugin expects.

    Raises:
        MdmError: one has no reason, or names no check.
    """
    expected, known = of.expected, {check.name for check in checks}
    for name, reason in expected.items():
        if name not in known:
            raise MdmError(f"{of.kind} {of.name!r} expects to fail {name!r}: there is no such check of a {of.kind}")
        if not str(reason).strip():
            raise MdmError(f"{of.kind} {of.name!r} expects to fail {name!r} and gives no reason")
    return expected


def run(of: Subject, more: Sequence[Callable[[Subject], None]] = ()) -> Iterator[Outcome]:
    """Run every check of the subject's kind, one outcome each."""
    every = list(checks(of.kind, more))
    expected = expectations(of, every)
    for check in every:
        yield outcome(check, of, expected.get(check.name))


def outcome(check: Check, of: Subject, expected: str | None = None) -> Outcome:
    """Run one check. Whatever the plugin raises is a failure."""
    try:
        check.run(of)
    except NotApplicable as reason:
        return Outcome(check.name, check.about, "skipped", str(reason))
    except Exception as error:
        if expected:
            return Outcome(check.name, check.about, "expected", expected)
        return Outcome(check.name, check.about, "failed", one_line(error))
    if expected:
        return Outcome(
            check.name, check.about, "unexpected", f"it passes: take it out of expected_failures ({expected})"
        )
    return Outcome(check.name, check.about, "passed")
