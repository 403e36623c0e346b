"""The conformance kit: run against a plugin, yours or ours, what every plugin of its kind promises.

    from mdm_testing import parametrize_with_checks

    @parametrize_with_checks("sampler", ["my-sampler"])
    def test_conforms(check):
        check()

or ``mdm check my-sampler`` from the shell. It needs no download: samplers and caches run on a toy model made on the
spot. A plugin that knowingly fails a check says so in a class attribute ``expected_failures``, the check's name with
the reason; the report shows both. A name's module is imported on first use, so that ``mdm new`` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm_testing.kit import Check, NotApplicable, Outcome, Subject
    from mdm_testing.parametrize import parametrize_with_checks
    from mdm_testing.suite import checks, run, subject
    from mdm_testing.toy import toy_model

__all__ = [
    "Check",
    "NotApplicable",
    "Outcome",
    "Subject",
    "checks",
    "parametrize_with_checks",
    "run",
    "subject",
    "toy_model",
]

_NAMES = {
    "kit": ("Check", "NotApplicable", "Outcome", "Subject"),
    "parametrize": ("parametrize_with_checks",),
    "suite": ("checks", "run", "subject"),
    "toy": ("toy_model",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
