"""Which checks there are, and how they are run against a plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from mdm import registry
from mdm.errors import MdmError, cause, explain, suggest
from pydantic import ValidationError

from mdm_testing.kit import CHECKS, Check, NotApplicable, Outcome, Subject, one_line
from mdm_testing.limits import TimeIsUp, place_of, time_limit

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


PROMISES = {
    "nowhere": "always_ends", "stray": "commits_only_what_it_was_shown", "strange": "commits_tokens_of_the_vocabulary",
    "foreign": "scores_it_returns_are_true",
}  # fmt: skip
"""What the engine refuses a sampler for in every decode -> the check that is for it."""


def run(
    of: Subject, more: Sequence[Callable[[Subject], None]] = (), *, names: Sequence[str] = (),
    timeout: float | None = None, on_check: Callable[[Check], None] | None = None,
) -> Iterator[Outcome]:  # fmt: skip
    """Run the checks of the subject's kind, one outcome each.

    Args:
        names: run only the checks of these names, or with one of them in their names; none: all.
        timeout: seconds that each may take; None: no limit.
        on_check: called with each check before it runs.

    Raises:
        MdmError: a name that no check has; a plugin that cannot be made; a wrong expectation.
    """
    every = list(checks(of.kind, more))
    expected = expectations(of, every)
    waiting = {check.name: check for check in _chosen(of.kind, every, names)}
    _check_made(of, timeout)
    done: dict[str, Outcome] = {}

    def tried(name: str) -> Outcome:
        check = waiting.pop(name)
        if on_check is not None:
            on_check(check)
        found = outcome(check, of, expected.get(name), timeout)
        first = next((other for other, one in done.items() if found.where and one.where == found.where), "")
        done[name] = found = replace(found, same_as=first) if first else found
        return found

    while waiting:
        name = next(iter(waiting))
        found = tried(name)
        if found.same_as in waiting:  # the check that is for it comes first
            yield tried(found.same_as)
        known = done.get(found.same_as)
        yield found if known and not known.ok and found.same_as != name else replace(found, same_as="")


def _chosen(kind: str, every: Sequence[Check], names: Sequence[str]) -> Sequence[Check]:
    """The checks of these names, or with them in their names."""
    known = {check.name for check in every}
    for name in names:
        if not any(name in other for other in known):
            raise MdmError(f"-k {name}: no check of a {kind} has such a name.{suggest(name, known)}")
    return [
        check for check in every
        if not names or any(name == check.name or (name not in known and name in check.name) for name in names)
    ]  # fmt: skip


def _check_made(of: Subject, timeout: float | None) -> None:
    """Refuse a plugin that cannot be made: no check could say anything else of it."""
    if of.kind not in ("sampler", "cache"):
        return
    try:
        with time_limit(timeout):
            of.make()
    except MdmError:
        raise
    except ValidationError as error:
        raise MdmError(f"{of.kind} {of.name!r}: {explain(error, 'option ', of.plugin.Options)}") from error
    except (Exception, SystemExit, TimeIsUp) as error:
        why = f"it takes more than {timeout:g} s" if isinstance(error, TimeIsUp) else cause(error)
        raise MdmError(
            f"{of.kind} {of.name!r} cannot be made: {why} ({place_of(error, of) or 'in its base'})"
        ) from error


def outcome(check: Check, of: Subject, expected: str | None = None, timeout: float | None = None) -> Outcome:
    """Run one check, for ``timeout`` seconds at most. Whatever the plugin raises is a failure."""
    try:
        with time_limit(timeout):
            check.run(of)
    except NotApplicable as reason:
        return Outcome(check.name, check.about, "skipped", str(reason))
    except (Exception, SystemExit, TimeIsUp) as error:
        if expected:
            return Outcome(check.name, check.about, "expected", expected)
        late = isinstance(error, TimeIsUp)
        detail = f"it has not ended after {timeout:g} s" if late else one_line(error)
        same = PROMISES.get(getattr(error, "fault", ""), "")
        where = place_of(error, of) or (place_of(error, None) if late else "")
        return Outcome(check.name, check.about, "failed", detail, where, same if same != check.name else "")
    if expected:
        return Outcome(
            check.name, check.about, "unexpected", f"it passes: take it out of expected_failures ({expected})"
        )
    return Outcome(check.name, check.about, "passed")
