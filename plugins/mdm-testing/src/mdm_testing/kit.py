"""What a check is: its subject, its outcome, and the decorator that registers one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from mdm.errors import MdmError


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
        return dict(self.plugin.expected_failures)


@dataclass(frozen=True)
class Check:
    """One promise of a kind. ``run`` raises AssertionError where it is broken, NotApplicable where it says nothing."""

    name: str
    about: str
    run: Callable[[Subject], None]

    @classmethod
    def of(cls, function: Callable[[Subject], None]) -> Check:
        """A function as a check, under its name; its docstring's first line says what it checks."""
        name = function.__name__
        return cls(name, (function.__doc__ or name).strip().splitlines()[0], function)


@dataclass(frozen=True)
class Outcome:
    """The result of one check.

    ``status`` "expected": it failed, as the plugin says it would. "unexpected": it passed although the plugin says
    that it fails.
    """

    check: str
    about: str
    status: Literal["passed", "failed", "expected", "unexpected", "skipped"]
    detail: str = ""
    where: str = ""
    """file and line of the plugin's own code where it failed, or stood when its time was up"""
    same_as: str = ""
    """the check whose failure this is again"""
    hangs: str = ""
    """the function of the plugin that had not come back when the time was up"""

    @property
    def ok(self) -> bool:
        return self.status in ("passed", "expected", "skipped")


CHECKS: dict[str, dict[str, Check]] = {}
"""Kind of plugin -> name -> check; "every" holds those of all kinds. The modules that hold checks fill it."""

F = TypeVar("F", bound=Callable[[Subject], None])


def check(kind: str) -> Callable[[F], F]:
    """Register a function as a check of a kind of plugin.

    Raises:
        ValueError: the kind has a check of that name.
    """

    def add(function: F) -> F:
        new, known = Check.of(function), CHECKS.setdefault(kind, {})
        if new.name in known:
            raise ValueError(f"a {kind} has a check {new.name} already: give yours another name")
        known[new.name] = new
        return function

    return add


def one_line(error: BaseException) -> str:
    """An error in one line, with its class where that says something."""
    text = " ".join(str(error).split())
    if isinstance(error, (AssertionError, MdmError)):
        return text or "assertion failed"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
