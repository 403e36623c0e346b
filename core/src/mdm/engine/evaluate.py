"""Scores of candidate commits, for samplers that look ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from mdm.engine.remembered import Remembered
from mdm.engine.rows import NamedCounts, RowRecord, common_counts, count_calls, row_counts
from mdm.engine.transition import Transition, query_of
from mdm.models.transfer import Array, to_device
from mdm.protocols.cache import Plan
from mdm.protocols.draws import Draws
from mdm.protocols.rowwise import fast_replace, repeat_rows
from mdm.protocols.sampler import Evaluate
from mdm.protocols.scores import Scores
from mdm.protocols.state import State
from mdm.scoring.forward_batch import ForwardBatch, Query
from mdm.scoring.scorer import Scorer
from torch import Tensor


def evaluate(
    ask: Evaluate,
    state: State,
    rows: Sequence[RowRecord],
    scores: Scores,
    plan: Plan,
    draws: Draws,
    *,
    transition: Transition,
    scorer: Scorer,
    fetch: Callable[..., list[Array]],
    memory: Remembered,
) -> Scores:
    """Scores ``[B, N, K]`` of the canvases that the candidates would lead to. State and store do not change.

    How many candidates there are and what is scored of them comes to the host in one transfer, together with the
    counts of the next step where the sampler promises to commit one of them: then these are set in ``rows``.
    """
    count, candidates = ask.valid.shape
    branched, valid = state.repeat_rows(candidates), ask.valid.flatten()
    window, positions = repeat_rows(plan.window, candidates), repeat_rows(scores.positions, candidates)
    where = (ask.candidates.where & transition.open_to_commits(state, scores)[:, None]).flatten(0, 1)
    candidate_tokens = ask.candidates.tokens.expand(count, candidates, -1).flatten(0, 1)
    tokens, masked = transition.commit(branched, positions, where, candidate_tokens)
    canvas = transition.canvas_number(tokens).view(count, candidates)
    reach = masked
    if ask.reach == "span" or scorer.block_length:
        reach = masked & repeat_rows(state.in_block, candidates)
    score = reach
    if transition.sampler.reads != "masked":  # what a step of it is shown
        score = reach | repeat_rows(transition.wanted(state), candidates)
    readable = transition.readable(window)
    score = score & readable
    sets, flags = {"unscored": reach & ~readable, "score": score}, {"valid": valid}
    foresee = ask.commits_a_candidate and not memory
    if foresee:
        after, changed = transition.next_state(branched, tokens, masked, None)
        known = transition.known(after, changed, valid)
        next_sets, next_flags = transition.counted(after, transition.plan(after), known, None)
        sets, flags = sets | next_sets, flags | next_flags
    counts = NamedCounts.of(sets, flags)
    unscored = counts["unscored"]
    [values] = fetch(counts.values)
    on_host = counts.on_host(values)
    chosen: list[int] = [i for i, is_valid in enumerate(on_host["valid"]) if is_valid]
    next_counts = row_counts(on_host) if foresee else []
    for b, row in enumerate(rows):
        of_row = slice(b * candidates, (b + 1) * candidates)
        row.candidates = sum(on_host["valid"][of_row])
        row.next_counts = common_counts(next_counts[of_row], on_host["valid"][of_row]) if foresee else None
    if not chosen:
        return fast_replace(scores.empty(count * candidates, 1).unflatten(count, candidates), canvas=canvas)

    every = len(chosen) == count * candidates
    width = max(_counts(row).window if transition.cache.uses_kv else row.length for row in rows)
    each = scorer.padded(count, max(row.candidates for row in rows), width)
    served: list[int | None] = [i // candidates for i in chosen]
    if each is not None and not every:
        chosen = _padded(chosen, count, candidates, each)
        served = [
            i // candidates if on_host["valid"][i] and i not in chosen[:n] else None for n, i in enumerate(chosen)
        ]
    owners = [i // candidates for i in chosen]
    # Invalid candidates are not run; in the answer they repeat a valid one before them, and are marked invalid.
    back = [] if every else _places(chosen, count * candidates)
    index = to_device([*owners, *chosen, *back], valid.device)
    if not every:
        pick, back_index = index[len(chosen) : 2 * len(chosen)], index[2 * len(chosen) :]
        tokens, score, unscored, window = (x.index_select(0, pick) for x in (tokens, score, unscored, window))
    query = None
    if transition.cache.uses_kv:
        query = Query(window, [_counts(rows[b]).window for b in owners])
        if transition.cache.inside_layers:
            query = query_of(plan.rows(index[: len(chosen)]), [_counts(rows[b]) for b in owners], write=False)
    batch = ForwardBatch(
        rows=owners, row_index=index[: len(chosen)], tokens=tokens, lengths=[rows[b].length for b in owners],
        score=score, score_counts=[on_host["score"][i] for i in chosen], unscored=unscored, query=query,
        unconditional_starts=[rows[b].unconditional_start for b in owners],
        held=None if ask.held is None else ask.held.index_select(0, index[: len(chosen)]),
    )  # fmt: skip
    answer, calls = scorer.scores(state, batch, draws.later())
    if ask.held is not None:
        answer = fast_replace(answer, names_held=True)
    count_calls(rows, served, calls, scorer.cfg_branches)
    if not every:
        answer = answer.rows(back_index)
        answer = _mark_valid(answer, valid)
    return fast_replace(answer.unflatten(count, candidates), canvas=canvas)


def _padded(chosen: Sequence[int], count: int, candidates: int, each: int) -> list[int]:
    """Of each of ``count`` rows ``each`` candidates: those that are ``chosen``, the last or else the first again."""
    own: list[list[int]] = [[] for _ in range(count)]
    for i in chosen:
        own[i // candidates].append(i)
    return [
        i for row, of_row in enumerate(own)
        for i in (of_row + (of_row[-1:] or [row * candidates]) * each)[:each]
    ]  # fmt: skip


def _places(chosen: Sequence[int], total: int) -> list[int]:
    """Where each of ``total`` candidates stands among the ``chosen``, or the last before it that does."""
    place = {i: n for n, i in reversed(list(enumerate(chosen)))}
    return list(accumulate(range(total), lambda last, i: place.get(i, last), initial=0))[1:]


def _mark_valid(scores: Scores, valid: Tensor) -> Scores:
    return fast_replace(scores, valid=scores.valid & valid[:, None], unscored=scores.unscored * valid)


def _counts(row: RowRecord) -> Any:
    assert row.counts is not None
    return row.counts
