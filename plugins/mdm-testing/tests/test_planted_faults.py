"""A kit that catches nothing proves nothing: each fault here is caught by the check that should catch it."""

from __future__ import annotations

import mdm.engine.evaluate
import pytest
from mdm.errors import MdmError
from mdm.scoring.forward_batch import Query
from mdm_testing import Subject, checks, parametrize_with_checks, run, subject
from planted_faults import FAULTS, AllRight, Echo, Edits, Overspends, Shades, Sound, WholeSpan


def outcomes(kind, plugin, name):
    of = subject(kind, plugin)
    return {one.name: one for one in checks(kind)}[name].run, of


@pytest.mark.parametrize(
    ("kind", "plugin", "name"), FAULTS, ids=[f"{subject(k, p).name}-{name}" for k, p, name in FAULTS]
)
def test_the_fault_is_caught(kind, plugin, name):
    run_check, of = outcomes(kind, plugin, name)
    with pytest.raises(AssertionError):
        run_check(of)


def test_a_candidate_that_leaks_into_the_cache_is_caught(monkeypatch):
    """The core keeps a lookahead from writing; a store that writes anyway is noticed."""
    run_check, of = outcomes("cache", WholeSpan, "is_read_only_while_a_sampler_looks_ahead")
    run_check(of)
    monkeypatch.setattr(mdm.engine.evaluate, "Query", lambda run, counts: Query(run, counts, run, counts))
    with pytest.raises(AssertionError, match="leaked"):
        run_check(of)


@pytest.mark.parametrize(
    ("kind", "plugin"), [("sampler", Sound), ("sampler", Edits), ("cache", WholeSpan), ("task", Echo), ("task", Shades)]
)
def test_a_sound_plugin_passes(kind, plugin):
    assert [(o.check, o.detail) for o in run(subject(kind, plugin)) if not o.ok] == []


def test_an_expected_failure_needs_a_reason_and_a_check():
    class Silent(Overspends):
        expected_failures = {"keeps_to_the_budget": " "}

    class Unknown(Overspends):
        expected_failures = {"no_such_check": "because"}

    with pytest.raises(MdmError, match="'keeps_to_the_budget' and gives no reason"):
        list(run(subject("sampler", Silent)))
    with pytest.raises(MdmError, match="'no_such_check': there is no such check of a sampler"):
        parametrize_with_checks("sampler", [Unknown])


def test_an_expected_failure_is_reported_and_one_that_passes_is_a_failure():
    class Known(AllRight):
        expected_failures = {"garbage_is_wrong": "graded by people", "ids_are_unique": "they are, though"}

    found = {o.check: o for o in run(subject("task", Known))}
    assert (found["garbage_is_wrong"].status, found["garbage_is_wrong"].detail) == ("expected", "graded by people")
    assert found["garbage_is_wrong"].ok
    assert found["ids_are_unique"].status == "unexpected" and not found["ids_are_unique"].ok
    marks = {p.id: p.marks for p in parametrize_with_checks("task", [Known]).args[1]}
    assert marks["Known-garbage_is_wrong"][0].kwargs == {"strict": True, "reason": "graded by people"}
    assert not marks["Known-the_reference_is_right"]


def test_a_check_of_ones_own_runs_and_replaces_none():
    def holds_more(of: Subject) -> None:
        """Holds more."""
        assert of.name == "Echo"

    assert {o.check: o.status for o in run(subject("task", Echo), [holds_more])}["holds_more"] == "passed"

    def garbage_is_wrong(of: Subject) -> None:
        """Does not look."""

    with pytest.raises(MdmError, match="garbage_is_wrong is a check of the kit"):
        parametrize_with_checks("task", [Echo], more=[garbage_is_wrong])
