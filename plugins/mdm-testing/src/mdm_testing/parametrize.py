"""The kit's checks as parameters of a test in pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mdm_testing import kit, suite

if TYPE_CHECKING:
    from pytest import MarkDecorator


def parametrize_with_checks(
    kind: str, plugins: Iterable[Any], *, more: Sequence[Callable[[kit.Subject], None]] = (), **fields: Any
) -> MarkDecorator:
    """Give a test one parameter, ``check``, for each check of each plugin; the test calls it.

    A failure that a plugin expects (``expected_failures``) is a strict xfail with its reason.

    Args:
        kind: sampler, cache, model, task or preset.
        plugins: installed names, plugin objects, or ``Subject``.
        more: checks of your own, functions of a ``Subject``, beside the kit's.
        fields: of ``Subject``, for all plugins: options, data, checkpoint.

    Raises:
        MdmError: an expected failure without a reason or of no check; a check of yours that would replace one.
    """
    import pytest

    checks = list(suite.checks(kind, more))
    parameters = []
    for plugin in plugins:
        of = suite.subject(kind, plugin, **fields)
        expected = suite.expectations(of, checks)
        for check in checks:
            reason = expected.get(check.name)
            marks = [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
            parameters.append(pytest.param(partial(_run, check, of), id=f"{of.name}-{check.name}", marks=marks))
    return pytest.mark.parametrize("check", parameters)


def _run(check: kit.Check, of: kit.Subject) -> None:
    import pytest

    try:
        check.run(of)
    except kit.NotApplicable as reason:
        pytest.skip(str(reason))
