"""What every sampler promises."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from mdm import registry
from mdm.errors import MdmError
from mdm.models import Model
from mdm.protocols import Commit, Evaluate, Scores
from mdm.protocols.scores import stack_certainty
from pydantic import BaseModel
from torch import Tensor

from mdm_testing.counters import Counts, counting
from mdm_testing.kit import Subject, check
from mdm_testing.probe import (
    GEN,
    Decided,
    Watched,
    at_step,
    copied,
    decode,
    difference,
    essence,
    of_rows,
    prompts,
    say,
    under,
)  # fmt: skip
from mdm_testing.toy import EOS, MASK, VOCABULARY, toy_model

PACES: tuple[dict[str, Any], ...] = ({}, {"tokens_per_step": 3})
"""One token a step, and several with a ragged end."""

WAITING: dict[str, Any] = {"schedule": "dream", "steps": 12}
"""A pace with steps whose budget is 0."""

MOST_UPLOADS = 2
"""A step: keys of the sampler's draws."""


@check("sampler")
def options_refuse_unknown_names(of: Subject) -> None:
    """Options is a pydantic model with defaults that forbids names it does not know."""
    refuses_unknown_names(of)


@check("sampler")
def commits_only_what_it_was_shown(of: Subject) -> None:
    """Commits and candidates are at positions whose scores are valid: these are what the sampler may decide."""
    for settings in PACES:
        for seen in _decided(of, **settings):
            valid = of_rows(seen, seen.scores.valid)
            _within(seen, seen.commit, valid, "commits")
            for asked in seen.asked:
                ours = asked.candidates.where & asked.valid[..., None]
                _within(seen, replace(asked.candidates, where=ours), seen.scores.valid[:, None], "weighs")


@check("sampler")
def commits_to_visible_positions_only_if_it_reads_them(of: Subject) -> None:
    """A decoded position is changed, or masked again, only by a sampler that reads it (reads is not "masked")."""
    if _reads(of) != "masked":
        return
    for seen in _decided(of):
        at, where = of_rows(seen, seen.scores.positions), seen.commit.where
        masked = of_rows(seen, seen.state.masked).gather(1, at)
        assert not (where & ~masked).any(), say("commits a position that is not masked", seen, where & ~masked)
        again = where & (seen.commit.tokens == MASK)
        assert not again.any(), say("masks a position again without reading committed ones", seen, again)


@check("sampler")
def commits_tokens_of_the_vocabulary(of: Subject) -> None:
    """Committed tokens are int64 ids of the vocabulary."""

    def look(seen: Decided) -> None:
        tokens, where = seen.commit.tokens, seen.commit.where
        bad = where & ((tokens < 0) | (tokens >= VOCABULARY))
        assert not bad.any(), say("commits an id outside of the vocabulary", seen, bad)

    decode(toy_model(), prompts(), Watched(of.make(), look=look), temperature=0.8)


@check("sampler")
def stays_in_its_span(of: Subject) -> None:
    """Blocks are decoded one after the other; a sampler that sees the canvas may commit masks of later ones too."""
    for seen in _decided(of):
        state = seen.state
        span = state.in_block if of.plugin.sees == "block" else state.blocks >= state.block[:, None]
        inside = of_rows(seen, span).gather(1, of_rows(seen, seen.scores.positions))
        outside = seen.commit.where & ~inside
        assert not outside.any(), say("commits a position outside of its span", seen, outside)


@check("sampler")
def keeps_to_the_budget(of: Subject) -> None:
    """No step commits more than the schedule's k, unless the sampler sets its own pace (pace = "own")."""
    if of.plugin.pace == "own":
        return
    for settings in (*PACES, WAITING):
        for seen in _decided(of, **settings):
            masked = of_rows(seen, seen.state.masked).gather(1, of_rows(seen, seen.scores.positions))
            spent = (seen.commit.where & masked & (seen.commit.tokens != MASK)).sum(1)
            over = spent > of_rows(seen, seen.state.budget)
            assert not over.any(), (
                f"step {at_step(seen)} commits {spent.tolist()} tokens a row where the schedule has "
                f'{seen.state.budget.tolist()}: keep to state.budget, or say pace = "own"'
            )


@check("sampler")
def always_ends(of: Subject) -> None:
    """Every prompt ends, with no mask left, at any pace and schedule, with and without a stop at EOS."""
    more = ({"schedule": "cosine", "steps": 4}, {"stop_at_eos": True, "eos_token_id": EOS}, {"temperature": 1.0})
    for settings in (*PACES, *more):
        try:
            results = decode(toy_model(), prompts(), of.make(), **settings)
        except MdmError as error:  # the engine refuses a sampler that gets nowhere
            raise AssertionError(f"{under(settings)}{error}") from error
        for result in results:
            assert MASK not in result.sequence, f"{under(settings)}masks are left: {result.sequence}"


@check("sampler")
def fills_holes_and_nothing_else(of: Subject) -> None:
    """An infill changes the masks of the prompt and no other token."""
    [prompt] = prompts(lengths=(17,))
    holes = [2, 3, 9, 14]
    holed = [MASK if i in holes else token for i, token in enumerate(prompt)]
    [result] = decode(toy_model(), [holed], of.make(), gen_length=0)
    assert MASK not in result.sequence, "masks are left"
    changed = [i for i, (a, b) in enumerate(zip(prompt, result.sequence, strict=True)) if a != b and i not in holes]
    assert not changed, f"changes the visible positions {changed}"


@check("sampler")
def a_row_does_not_depend_on_its_neighbours(of: Subject) -> None:
    """A prompt decodes to the same tokens in the same order alone, and in any batch."""
    for settings in ({}, {"tokens_per_step": 3, "temperature": 0.7}):
        _alone_and_together(of, toy_model(), "none", **settings)


@check("sampler")
def rows_may_come_and_go(of: Subject) -> None:
    """A batch that takes in prompts as rows end decodes as one batch of all; the sampler's memory follows its rows."""
    given, lengths = prompts(), [4, 8, 6, 3]
    together = decode(toy_model(), given, of.make(), gen_length=lengths)
    refilled = decode(toy_model(), given, of.make(), gen_length=lengths, batch_size=2)
    for i, (a, b) in enumerate(zip(together, refilled, strict=True)):
        assert essence(a) == essence(b), f"prompt {i} decodes otherwise where rows come and go"


@check("sampler")
def runs_under_every_cache(of: Subject) -> None:
    """Under each installed cache it ends, and no row depends on its neighbours (reads = "left-out": none alone)."""
    for name in registry.names("cache"):
        try:
            cache = registry.resolve("cache", name)
        except MdmError:
            continue  # a broken cache is not the sampler's fault
        attention = cache.attention or "full"
        if name != "none" and _reads(of) != "left-out":
            _alone_and_together(of, toy_model(attention), name)


@check("sampler")
def runs_on_every_attention(of: Subject) -> None:
    """It decodes a model of block-causal attention, and one whose logits are shifted, as it does the others.

    With reads = "left-out" a sampler is refused where logits are shifted.
    """
    _alone_and_together(of, toy_model("block-causal"), "none")
    if _reads(of) != "left-out":
        _alone_and_together(of, toy_model(shift=True), "none")


@check("sampler")
def is_a_pure_function(of: Subject) -> None:
    """Asked again with the same state, scores, memory and draws, a new instance answers the same."""
    for settings in ({"temperature": 0.7}, {"tokens_per_step": 3}):
        for seen in _decided(of, **settings):
            torch.manual_seed(1234)
            again = _asked_again(of, seen)
            where = difference(again, seen.commit)
            assert where is None, f"step {at_step(seen)}: asked again, its commit has another {where}"


@check("sampler")
def ignores_invalid_places(of: Subject) -> None:
    """Where scores are not valid they mean nothing: whatever stands there, the commit is the same."""
    for seen in _decided(of):
        seen = replace(seen, commit=_asked_again(of, seen))
        for confidence in (0.0, 1.0):
            spoilt, *answers = (_spoilt(scores, confidence) for scores in (seen.scores, *seen.answers))
            again = _asked_again(of, replace(seen, scores=spoilt, answers=answers))
            where, tokens = again.where, again.tokens
            other = where ^ seen.commit.where if where.shape == seen.commit.where.shape else where
            if again.source is None and seen.commit.source is None:
                other = other | (where & (tokens != seen.commit.tokens))
            assert not other.any(), say(
                "commits otherwise where other numbers stand at places that are not valid (rank with top_k(key, "
                "scores.valid, ...))", replace(seen, commit=again), other
            )  # fmt: skip


def _spoilt(scores: Scores, confidence: float) -> Scores:
    """Scores that are as sure, or as unsure, as can be at all places that are not valid."""
    odds = 50.0 if confidence else -50.0
    numbers = stack_certainty(
        confidence=torch.tensor(confidence), log_odds=torch.tensor(odds), entropy=torch.tensor(9 * (1 - confidence)),
        tail_odds=torch.tensor(99 * (1 - confidence)), runner_up_odds=torch.tensor(1 - confidence),
    )  # fmt: skip
    held = None if scores.held is None else scores.held.where(scores.valid, confidence)
    return replace(scores, numbers=torch.where(scores.valid[..., None], scores.numbers, numbers), held=held)


@check("sampler")
def waits_for_nothing(of: Subject) -> None:
    """Deciding brings nothing to the host, which would make an accelerator wait: no item, no nonzero."""
    steps = _counted(of)
    waits = sum(counts.syncs for counts in steps)
    assert not waits, f"waits {waits} times for the host in {len(steps)} steps: keep to tensor operations"


@check("sampler")
def copies_nothing_that_waits(of: Subject) -> None:
    """After its first step it brings no numbers of the host to the device but its draws, which do not wait."""
    later = _counted(of)[1:]
    pageable, uploads = (sum(getattr(counts, name) for counts in later) for name in ("pageable", "to_device"))
    assert not pageable, (
        f"copies numbers of the host to the device {pageable} times in {len(later)} steps, and each copy waits: make "
        "tensors with operations there, or once"
    )
    assert uploads <= MOST_UPLOADS * len(later), f"copies {uploads} times to the device in {len(later)} steps"


@check("sampler")
def keeps_nothing_in_itself(of: Subject) -> None:
    """What it remembers of rows lies in its memory: the instance is after a decoding what it was before."""
    sampler = of.make()
    before = dict(vars(sampler))
    decode(toy_model(), prompts(), sampler)
    after = vars(sampler)
    changed = sorted(key for key in {*before, *after} if before.get(key) is not after.get(key))
    assert not changed, f"changes its own {', '.join(changed)}: a sampler's memory is what begin returns"


@check("sampler")
def changes_nothing_it_is_given(of: Subject) -> None:
    """State and scores are as they were when the sampler has decided."""

    class Guard(Watched):
        def decide(self, state: Any, scores: Any, memory: Any, draws: Any) -> Any:
            before = copied(state), copied(scores)
            commit = yield from super().decide(state, scores, memory, draws)
            for name, old, new in (("state", before[0], state), ("scores", before[1], scores)):
                changed = difference(old, new)
                assert changed is None, f"writes into {name}.{changed}: build a new tensor"
            return commit

    decode(toy_model(), prompts(), Guard(of.make()), tokens_per_step=3)


@check("sampler")
def leaves_global_generators_alone(of: Subject) -> None:
    """Draws are keyed: no global generator is used or moved, and the seed alone decides."""
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), random.getstate()
        results.append([essence(r) for r in decode(toy_model(), prompts(), of.make(), temperature=0.9, seed=7)])
        assert torch.equal(before[0], torch.get_rng_state()), "draws from torch's global generator: use draws"
        assert before[1] == random.getstate(), "draws from random's global generator: use draws"
    assert results[0] == results[1], "decides otherwise at another state of the global generators: use draws"


@check("sampler")
def scores_it_returns_are_true(of: Subject) -> None:
    """Scores returned with a commit are those of the canvas after it: computed anew, they change no decision."""
    for settings in ({}, {"cache": "none", "temperature": 0.7}):
        try:
            reused = decode(toy_model(), prompts(), of.make(), **settings)
        except MdmError as error:
            if error.fault != "foreign":
                raise
            raise AssertionError(str(error)) from error
        afresh = decode(toy_model(), prompts(), of.make(), reuse_scores=False, **settings)
        for i, (a, b) in enumerate(zip(reused, afresh, strict=True)):
            assert essence(a) == essence(b), f"prompt {i} decodes otherwise when its scores are computed anew"


@check("sampler")
def keeps_binding_promises(of: Subject) -> None:
    """After a binding Evaluate each row commits a valid candidate with its scores, or the first if none is valid."""
    for settings in PACES:
        for seen in _decided(of, **settings):
            if seen.asked and seen.asked[-1].commits_a_candidate:
                _is_one_of(seen, seen.asked[-1])


@check("sampler")
def a_trace_explains_it(of: Subject) -> None:
    """Replaying the trace's commits gives the tokens."""
    for prompt, result in zip(prompts(), decode(toy_model(), prompts(), of.make()), strict=True):
        canvas = prompt + [MASK] * GEN
        for line in result.trace:
            for position, token in zip(line["positions"], line["tokens"], strict=True):
                canvas[position] = token
        assert canvas == result.sequence, "its trace, replayed, gives other tokens"


def refuses_unknown_names(of: Subject) -> None:
    """The options of any kind: a pydantic model with defaults, and extra="forbid"."""
    options = of.plugin.Options
    assert isinstance(options, type) and issubclass(options, BaseModel), "Options is not a pydantic model"
    for name, field in options.model_fields.items():
        assert not field.is_required(), f"option {name} has no default"
        assert field.description, f"option {name} has no description, which `mdm plugins NAME` would show"
    try:
        options.model_validate({**of.options, "no_such_option_": 1})
    except ValueError:
        return
    raise AssertionError("Options takes a name it does not know: derive it from mdm.protocols.options.NoOptions")


def _counted(of: Subject) -> list[Counts]:
    """What each step of a decode costs in the sampler's own code."""
    steps: list[Counts] = []

    @contextmanager
    def counted() -> Iterator[None]:
        if len(steps) == len(watched.decided):
            steps.append(Counts())
        counts = Counts()
        try:
            with counting() as counts:
                yield
        finally:
            for name in ("syncs", "to_device", "pageable"):
                setattr(steps[-1], name, getattr(steps[-1], name) + getattr(counts, name))

    watched = Watched(of.make(), around=counted)
    decode(toy_model(), prompts()[:2], watched, tokens_per_step=3)
    return steps


def _alone_and_together(of: Subject, model: Model, cache: str, **settings: Any) -> None:
    given = prompts()[:3]
    together = decode(model, given, of.make(), cache, **settings)
    for i in (2, 1):  # the shortest, and the longest behind another neighbour
        others = [0] if i == 1 else []
        place = [*others, i]
        *_, other = decode(model, [given[j] for j in place], of.make(), cache, row_ids=place, **settings)
        assert MASK not in other.sequence, f"under cache {cache}, masks are left"
        assert essence(other) == essence(together[i]), (
            f"under cache {cache}, prompt {i} decodes otherwise with other neighbours: a row reads its neighbour's"
        )


def _decided(of: Subject, **settings: Any) -> Iterator[Decided]:
    """The steps of a batch whose rows have different numbers of masks, so that scores are padded."""
    watched, refused = Watched(of.make()), None
    try:
        decode(toy_model(), prompts(), watched, gen_length=[GEN, 3, GEN, 6], **settings)
    except MdmError as error:  # of the last step, which may be what a check looks for
        if not error.fault:
            raise
        refused = error
    yield from watched.decided
    if refused is not None:
        raise refused


def _asked_again(of: Subject, seen: Decided) -> Commit:
    """What a new instance answers in the same step.

    Raises:
        AssertionError: it asks for more than before.
    """
    with torch.inference_mode():
        decision = of.make().decide(seen.state, seen.scores, seen.memory, seen.draws)
        if isinstance(decision, Commit):
            return decision
        try:
            next(decision)
            for answer in seen.answers:
                decision.send(answer)
        except StopIteration as end:
            commit: Commit = end.value
            return commit
    raise AssertionError(f"step {at_step(seen)}: asked again, it wants to look further ahead than before")


def _within(seen: Decided, commit: Commit, valid: Tensor, verb: str) -> None:
    bad = commit.where & ~valid
    assert not bad.any(), say(f"{verb} a position whose score is not valid", seen, bad)


def _is_one_of(seen: Decided, asked: Evaluate) -> None:
    commit, first = seen.commit, torch.zeros_like(asked.valid)
    assert commit.source is None, f"step {at_step(seen)} binds itself and forks rows"
    first[:, 0] = ~asked.valid.any(1)
    where, tokens = asked.candidates.where, asked.candidates.tokens
    same = (where == commit.where[:, None]) & (~where | (tokens == commit.tokens[:, None]))
    strays = ~(same.all(-1) & (asked.valid | first)).any(1)
    assert not strays.any(), f"step {at_step(seen)} binds itself to its candidates and commits something else"
    known = torch.ones_like(strays) if commit.known is None else commit.known
    assert commit.scores is not None and torch.equal(known, asked.valid.any(1)), (
        f"step {at_step(seen)} binds itself: its scores are known for the rows that have a valid candidate"
    )


def _reads(of: Subject) -> str:
    return str(of.plugin.reads)
