"""What every cache mode promises."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple, Self

import torch
from mdm.engine.engine import Engine
from mdm.engine.requests import Request
from mdm.engine.steps import in_steps
from mdm.models import Model
from mdm.protocols import ModelSpec, Plan, Seen, State
from mdm.protocols.settings import Settings
from mdm.scoring.logit_rules import LogitRules
from mdm.scoring.statistics import statistics
from torch import Tensor

from mdm_testing.counters import counting
from mdm_testing.kit import NotApplicable, Subject, check
from mdm_testing.probe import (
    GEN,
    Decided,
    Looking,
    Watched,
    copied,
    decode,
    difference,
    essence,
    looking,
    named_as,
    plain,
    prompts,
)
from mdm_testing.samplers import refuses_unknown_names
from mdm_testing.toy import BLOCK, MASK, toy_model

CLOSE = 2e-3
"""How far two float32 forwards of one canvas may differ, in nats and log-odds."""
UNEVEN = [10, 3, 8, 6]
"""Lengths that bring rows into their blocks at different steps."""


class _Shown:
    """A cache mode that passes each plan to ``look`` before the engine gets it, and what it was given to make it.

    Its class has the name and module of the one it wraps, which errors name.
    """

    def __new__(cls, mode: Any, *_: Any) -> Self:
        return named_as(mode, cls)

    def __init__(self, mode: Any, look: Callable[[State, Plan, Any], None]) -> None:
        self.mode, self.look = mode, look
        self.learned: list[tuple[Seen, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.mode, name)

    def plan(self, state: State, spec: ModelSpec, *memory: Any) -> Plan:
        plan: Plan = self.mode.plan(state, spec, *memory)
        if isinstance(plan, Plan):  # anything else is the engine's to refuse
            self.look(state, plan, memory)
        return plan

    def learn(self, seen: Seen, memory: Any) -> Any:
        self.learned.append((seen, memory))
        return self.mode.learn(seen, memory)


class _Planned(NamedTuple):
    """A step of a batch, and what the mode planned for it."""

    seen: Decided
    plan: Plan
    memory: Any
    """``()``, or with the mode's memory as the one item"""


@check("cache")
def options_refuse_unknown_names(of: Subject) -> None:
    """Options is a pydantic model with defaults that forbids names it does not know."""
    refuses_unknown_names(of)


@check("cache")
def plans_are_well_formed(of: Subject) -> None:
    """Plans are bool [B, L], within the real positions, and write no position that they do not run."""

    def look(state: State, plan: Plan, _: Any) -> None:
        shape = state.tokens.shape
        for name in ("query", "write", "window"):
            part = getattr(plan, name)
            assert part.dtype == torch.bool, f"{name} is {part.dtype}, not bool"
            assert part.shape == shape, f"{name} is {tuple(part.shape)}, the canvas {tuple(shape)}"
            assert not (part & ~state.in_canvas).any(), f"{name} holds padding"
        if plan.watched is None or plan.picked is None:
            assert not (plan.write & ~plan.query).any(), "writes positions that it does not run"
            return
        assert torch.equal(plan.write, plan.query | plan.watched), "write is not what is computed: query and watched"
        assert not (plan.watched & ~state.in_canvas).any(), "watched holds padding"
        few = plan.picked.ge(0) & plan.picked.le(plan.watched.sum(1))
        assert few.all(), "picks more positions than it watches, or less than none"

    decode(_model(of), prompts(), plain(), _Shown(of.make(), look), gen_length=UNEVEN)


@check("cache")
def runs_every_position_that_is_read(of: Subject) -> None:
    """Each step runs all masks of the row's block, or one at least where the mode remembers; so does a lookahead.

    Inside the layers a lookahead alone has to: a layer adds what it kept of all positions that it does not compute.
    """
    names = ("window",) if of.plugin.inside_layers else ("query", "window")

    def look(state: State, plan: Plan, memory: Any) -> None:
        masked = state.masked_in_block
        for name in names:
            run = masked & getattr(plan, name)
            out = masked.any(1) & ~run.any(1) if memory else (masked & ~run).any(1)
            what = "all masks" if memory else "masks"
            assert not out.any(), f"step {int(state.step.max())}: {name} leaves {what} of the block out"

    decode(_model(of), prompts(), plain(), _Shown(of.make(), look), gen_length=UNEVEN)


@check("cache")
@torch.inference_mode()
def plans_are_a_pure_function(of: Subject) -> None:
    """A plan, and what is learned from a step, depends on what is given alone: nothing is kept, nothing changed."""
    mode = of.make()
    before = dict(vars(mode))
    spec = _model(of).spec
    steps, learned = _planned(of)
    for seen, plan, memory in steps:
        state, known = copied(seen.state), [copied(each) for each in memory]
        again = mode.plan(seen.state, spec, *memory)
        assert difference(again, plan) is None, "planned again for the same state, it differs"
        changed = difference(state, seen.state)
        assert changed is None, f"writes into state.{changed}"
        assert not any(map(difference, known, memory)), "writes into its memory"
    for step, memory in learned:
        shown, known = deepcopy((step, memory))
        assert difference(mode.learn(step, memory), mode.learn(step, memory)) is None, "learns otherwise a second time"
        changed = difference(shown, step) or difference(known, memory)
        assert changed is None, f"writes into {changed} of what it learns from"
    after = vars(mode)
    changed = ", ".join(key for key in {*before, *after} if before.get(key) is not after.get(key))
    assert not changed, f"keeps {changed} in itself: rows come and go, and their state is in State"


@check("cache")
def waits_for_nothing(of: Subject) -> None:
    """Planning brings nothing to the host, which would make an accelerator wait."""
    mode, spec = of.make(), _model(of).spec
    steps, learned = _planned(of)
    for seen, _, memory in steps:
        with counting() as counts:
            mode.plan(seen.state, spec, *memory)
        assert not counts.syncs, f"waits {counts.syncs} times for the host in a plan: keep to tensor operations"
    for step, memory in learned:
        with counting() as counts:
            mode.learn(step, memory)
        assert not counts.syncs, f"waits {counts.syncs} times for the host in learn: keep to tensor operations"


@check("cache")
def a_refresh_is_exact(of: Subject) -> None:
    """Where a row runs its whole canvas, its scores are those of the plain forward."""
    refreshes = 0
    for seen, plan, _ in _planned(of)[0]:
        whole = (plan.query == seen.state.in_canvas).all(1)
        refreshes += int(whole.sum())
        _equals_none(of, seen, whole)
    if not refreshes:
        raise NotApplicable("it never runs a whole canvas")


@check("cache")
def the_first_step_is_exact(of: Subject) -> None:
    """In its first step, with an empty cache, a row's scores are those of the plain forward."""
    for seen, _, _ in _planned(of)[0]:
        _equals_none(of, seen, seen.state.step == 0)


@check("cache")
def keeping_what_is_final_is_exact(of: Subject) -> None:
    """On block-causal attention, a mode that keeps finished blocks only gives the plain forward's scores throughout."""
    if of.plugin.attention != "block-causal":
        raise NotApplicable("its attention is not block-causal")
    _uses_kv(of)
    for seen, plan, _ in _planned(of)[0]:
        ahead = seen.state.positions >= seen.state.block_bounds[:, :1]
        _equals_none(of, seen, ~(plan.write & ahead).any(1))


@check("cache")
def is_read_only_while_a_sampler_looks_ahead(of: Subject) -> None:
    """A lookahead leaves the cached keys and values as they were: no candidate leaks into them."""
    _uses_kv(of)
    kept: list[Tensor] = []
    looks = 0

    def around(moment: str) -> None:
        nonlocal looks
        now = _kept(engine)
        if moment == "before":
            kept[:] = [tensor.clone() for tensor in now]
            return
        looks += 1
        assert len(now) == len(kept) and all(map(torch.equal, now, kept)), (
            "keys and values differ after a lookahead: a candidate leaked into the cache"
        )

    engine = _engine(_model(of), looking(around=around, heed=False), of.make())
    for _ in in_steps(engine, [Request(i, tokens, GEN, i) for i, tokens in enumerate(prompts())]):
        pass
    assert looks, "no lookahead was made"


@check("cache")
def looking_without_heeding_changes_nothing(of: Subject) -> None:
    """Lookaheads whose results the sampler ignores change no decision."""
    model, given = _model(of), prompts()
    looked = decode(model, given, looking(heed=False), of.make())
    for i, (a, b) in enumerate(zip(looked, decode(model, given, plain(), of.make()), strict=True)):
        assert essence(a) == essence(b), f"prompt {i} decodes otherwise after lookaheads whose outcome was not used"


@check("cache")
def a_row_does_not_depend_on_its_neighbours(of: Subject) -> None:
    """Padded and in any batch, a prompt decodes to the same tokens in the same order as alone."""
    model, given = _model(of), prompts()
    for sampler in (plain, looking):
        together = decode(model, given, sampler(), of.make(), tokens_per_step=2)
        for i in (1, 2):
            [alone] = decode(model, [given[i]], sampler(), of.make(), row_ids=[i], tokens_per_step=2)
            assert essence(alone) == essence(together[i]), f"prompt {i} decodes otherwise alone than in a batch"


@check("cache")
def rows_may_be_in_different_blocks(of: Subject) -> None:
    """Rows that enter their blocks at different steps, and rows that take an ended row's place, decode as alone."""
    model, given, lengths = _model(of), prompts(), UNEVEN
    refilled = decode(model, given, looking(), of.make(), gen_length=lengths, batch_size=2)
    for i, result in enumerate(refilled):
        [alone] = decode(model, [given[i]], looking(), of.make(), gen_length=lengths[i], row_ids=[i])
        assert essence(alone) == essence(result), f"prompt {i} decodes otherwise beside rows in other blocks"


@check("cache")
def holes_are_filled(of: Subject) -> None:
    """An infill, with visible tokens behind masks, ends and changes nothing but the masks."""
    [prompt] = prompts(lengths=(17,))
    holes = [5, 6, 11]
    holed = [MASK if i in holes else token for i, token in enumerate(prompt)]
    [result] = decode(_model(of), [holed], plain(), of.make(), gen_length=0)
    assert sorted(p for line in result.trace for p in line["positions"]) == holes


def _model(of: Subject) -> Model:
    return toy_model(of.plugin.attention or "full")


def _uses_kv(of: Subject) -> None:
    if not of.plugin.uses_kv:
        raise NotApplicable("it caches no keys and values")


def _planned(of: Subject) -> tuple[list[_Planned], list[tuple[Seen, Any]]]:
    """The steps of a batch with what the mode planned for each; and what it learned from, with its memory then."""
    last: list[Any] = []
    steps: list[_Planned] = []

    def look(_: State, plan: Plan, memory: Any) -> None:
        last[:] = [plan, memory]

    mode = _Shown(of.make(), look)
    watched = Watched(plain(), look=lambda seen: steps.append(_Planned(seen, *last)))
    decode(_model(of), prompts(), watched, mode, gen_length=UNEVEN)
    return steps, mode.learned


def _equals_none(of: Subject, seen: Decided, rows: Tensor) -> None:
    for row in rows.nonzero().flatten().tolist():
        state, valid = seen.state, seen.scores.valid[row]
        length = int(state.in_canvas[row].sum())
        true = statistics(_logits(_model(of), state, row, length), never=MASK)
        at = seen.scores.positions[row][valid]
        for name in ("entropy", "log_odds"):
            given, wanted = getattr(seen.scores, name)[row][valid], getattr(true, name)[at]
            off = float((given - wanted).abs().max())
            assert off < CLOSE, (
                f"step {int(state.step[row])}, row {row}: {name} differs from the plain forward's by {off:.3g}"
            )


def _logits(model: Model, state: State, row: int, length: int) -> Tensor:
    return model.score_logits(state.tokens[row : row + 1, :length], BLOCK)[0]


def _engine(model: Model, sampler: Looking, cache: Any) -> Engine:
    return Engine(model, sampler, cache, Settings(block_length=BLOCK), LogitRules(), on_finish=lambda row: None)


def _kept(engine: Engine) -> list[Tensor]:
    """Every tensor that the engine's store holds."""
    store = engine.scorer.store
    layers = [] if store is None else store.layers
    return [v for layer in layers for _, v in sorted(vars(layer).items()) if isinstance(v, Tensor)]
