"""Which checks there are, and how they are run against a plugin."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from mdm import registry
from mdm.errors import MdmError, cause, explain, suggest
from pydantic import ValidationError

from mdm_testing.kit import CHECKS, Check, NotApplicable, Outcome, Subject, one_line
from mdm_testing.limits import Hangs, TimeIsUp, hanging, method_of, place_of, time_limit

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
    _check_made(of, timeout, told="options_refuse_unknown_names" in waiting)
    told: dict[str, Outcome] = {}  # the failures, each cause once
    hung: list[str] = []

    def tried(name: str) -> Iterator[Outcome]:
        nonlocal of
        check = waiting.pop(name)
        if on_check is not None:
            on_check(check)
        found = outcome(check, of, expected.get(name), timeout)
        if found.same_as in waiting:  # the check that is for it comes first
            yield from tried(found.same_as)
        if found.status == "failed":
            first = next((other for other, one in told.items() if found.same_as == other or _same(found, one)), "")
            told.setdefault(first or name, found)
            found = replace(found, same_as=first)
        if found.hangs:
            hung.append(found.hangs)
            if hung.count(found.hangs) == 2:
                of = hanging(of, found.hangs, f"not run: it hangs as in {found.same_as}")
        yield found

    while waiting:
        yield from tried(next(iter(waiting)))


def _same(a: Outcome, b: Outcome) -> bool:
    """Whether two failures have one cause: the place in the plugin's code or, where there is none, what is said."""
    if a.hangs or b.hangs:
        return a.hangs == b.hangs
    if a.where or b.where:
        return a.where == b.where
    return _reason(a.detail) == _reason(b.detail)


def _reason(detail: str) -> str:
    """What is said of a failure, without whom it is said of, the settings, numbers and shapes."""
    detail = re.sub(r"^with \{.*?\}: |^under cache \S+ ", "", detail)
    detail = re.sub(r"^(sampler|cache) \w+( failed in \w+)?:? |^prompt \d+ | \(package \w+\)$", "", detail)
    return re.sub(r"\[[\d, ]*\]|\([\d, ]*\)|-?\d+(\.\d+)?", "#", detail)


def check_names(kind: str, names: Sequence[str], known: Collection[str] = ()) -> None:
    """Refuse names that no check has. Of the kit's, where none are ``known``; it reads them and imports nothing."""
    known = known or [
        name for module in ("packages", *KINDS[kind])
        for of, name in _CHECK.findall(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
        if of in (kind, "every")
    ]  # fmt: skip
    for name in names:
        if not any(name in other for other in known):
            raise MdmError(f"-k {name}: no check of a {kind} has such a name.{suggest(name, known)}")


_CHECK = re.compile(r'^@check\("(\w+)"\)\n(?:@.*\n)*def (\w+)', re.MULTILINE)


def _chosen(kind: str, every: Sequence[Check], names: Sequence[str]) -> Sequence[Check]:
    """The checks of these names, or with them in their names."""
    known = {check.name for check in every}
    check_names(kind, names, known)
    return [
        check for check in every
        if not names or any(name == check.name or (name not in known and name in check.name) for name in names)
    ]  # fmt: skip


def _check_made(of: Subject, timeout: float | None, told: bool) -> None:
    """Refuse a plugin that cannot be made: no check could say anything else of it.

    Not where an option without a default is missing and a check is to tell it.
    """
    if of.kind not in ("sampler", "cache"):
        return
    try:
        with time_limit(timeout):
            of.make()
    except MdmError:
        raise
    except ValidationError as error:
        if told and _needed(of, error):
            return
        raise MdmError(f"{of.kind} {of.name!r}: {explain(error, 'option ', of.plugin.Options)}") from error
    except (Exception, SystemExit, TimeIsUp) as error:
        why = f"it takes more than {timeout:g} s" if isinstance(error, TimeIsUp) else cause(error)
        raise MdmError(
            f"{of.kind} {of.name!r} cannot be made: {why} ({place_of(error, of) or 'in its base'})"
        ) from error


def _needed(of: Subject, error: BaseException) -> str:
    """The option without a default that was not given, where that is all that is wrong."""
    if of.kind not in ("sampler", "cache") or not isinstance(error, ValidationError):
        return ""
    wrong = error.errors(include_url=False)
    ours = error.title == of.plugin.Options.__name__ and all(each["type"] == "missing" for each in wrong)
    return str(wrong[0]["loc"][0]) if ours else ""


def outcome(check: Check, of: Subject, expected: str | None = None, timeout: float | None = None) -> Outcome:
    """Run one check, for ``timeout`` seconds at most. Whatever the plugin raises is a failure."""
    try:
        with time_limit(timeout):
            check.run(of)
    except NotApplicable as reason:
        return Outcome(check.name, check.about, "skipped", str(reason))
    except Hangs as error:
        return Outcome(check.name, check.about, "failed", str(error), hangs=error.method)
    except TimeIsUp as error:
        if expected:
            return Outcome(check.name, check.about, "expected", expected)
        where, detail = place_of(error, of), f"it has not ended after {timeout:g} s"
        detail += "" if where else f", and was not in the {of.kind}'s code then: raise --timeout"
        return Outcome(check.name, check.about, "failed", detail, where, hangs=method_of(error, of))
    except (Exception, SystemExit) as error:
        if needed := _needed(of, error):
            return Outcome(check.name, check.about, "skipped", f"it cannot be made without -o {needed}=VALUE")
        if expected:
            return Outcome(check.name, check.about, "expected", expected)
        same = PROMISES.get(getattr(error, "fault", ""), "")
        return Outcome(
            check.name, check.about, "failed", one_line(error), place_of(error, of), same if same != check.name else ""
        )
    if expected:
        return Outcome(
            check.name, check.about, "unexpected", f"it passes: take it out of expected_failures ({expected})"
        )
    return Outcome(check.name, check.about, "passed")
