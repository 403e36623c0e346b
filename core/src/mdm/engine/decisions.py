"""Calls of samplers and caches, which are anybody's code: what they raise and answer is checked, and they are named.

What is checked is known on the host, so that nothing waits for it. Tokens are checked as the trace comes to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

import torch
from mdm.engine.memory import out_of_memory
from mdm.engine.rows import RowRecord
from mdm.errors import MdmError, PromptError, cause
from mdm.protocols.cache import Plan
from mdm.protocols.rowwise import Rowwise
from mdm.protocols.sampler import Commit, Evaluate
from mdm.protocols.scores import Scores
from mdm.protocols.state import State
from torch import Tensor

MAX_ASKED = 128
"""How often a sampler may look ahead in one step."""
MAX_STEPS = 8
"""Steps per position of a block, beside those planned, that may pass until it has fewer masks than ever before."""
LEAST_STEPS = 128
"""That may pass however short the block is: a sampler that edits may take its time."""


@dataclass(frozen=True)
class Asked:
    """A plugin of a ``kind``, as it is called and named."""

    kind: str
    plugin: Any

    def error(self, text: str, error: type[MdmError] = MdmError) -> MdmError:
        """An error whose line names the plugin's class and package around ``text``."""
        kind = type(self.plugin)
        return error(f"{self.kind} {kind.__name__}{text} (package {kind.__module__.partition('.')[0]})")

    def ask(self, method: str, *given: Any, call: Callable[..., Any] | None = None) -> Any:
        """What its ``method`` answers; ``call`` is in place of it, where that goes on what it has begun.

        Raises:
            PromptError: it raised something; what it says to the user, and that memory ran out, stays as it is.
        """
        try:
            return (call or getattr(self.plugin, method))(*given)
        except (MdmError, AssertionError, KeyboardInterrupt):  # a check of what a plugin does fails by the second
            raise
        except BaseException as error:  # SystemExit, too: a plugin ends nobody's process
            if out_of_memory(error):
                raise
            raise self.error(f" failed in {method}: {cause(error)}", PromptError) from error


@contextmanager
def no_end() -> Iterator[None]:
    """Name who raises what a caller's loop would take for its own end: a sampler, a processor, ``on_step``."""
    try:
        yield
    except (StopIteration, GeneratorExit, RuntimeError) as error:
        end = error.__cause__ if isinstance(error, RuntimeError) else error  # of a StopIteration within a generator
        if not isinstance(end, (StopIteration, GeneratorExit)):
            raise
        *_, (frame, _) = walk_tb(end.__traceback__)
        who = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"
        raise MdmError(f"{who} raised {cause(end)}, which does not end a decode") from error


def go_on(decision: Generator[Any, Any, Any], answer: Any) -> tuple[bool, Any]:
    """What a lookahead asks for, given the answer to what it asked before; or, with False, what it returns."""
    try:
        return True, decision.send(answer)
    except StopIteration as end:
        return False, end.value


def check_commit(who: Asked, commit: Any, scores: Scores) -> None:
    """Refuse what is no ``Commit`` over these scores ``[B, K]``.

    Raises:
        MdmError: it names the field.
    """
    if not isinstance(commit, Commit):
        raise who.error(f": decide returned {_shown(commit)}, which is no Commit")
    count, width = scores.positions.shape
    device = scores.positions.device
    if commit.source is not None:
        if not isinstance(commit.source, Tensor) or commit.source.dim() != 1:
            raise who.error(f": Commit.source is {_shown(commit.source)}, and should be int64 [B']")
        count = len(commit.source)
        _check(who, "Commit.source", commit.source, torch.int64, (count,), device)
    _check(who, "Commit.where", commit.where, torch.bool, (count, width), device)
    _check(who, "Commit.tokens", commit.tokens, torch.int64, (count, width), device)
    for name in ("known", "bypass"):
        if (value := getattr(commit, name)) is not None:
            _check(who, f"Commit.{name}", value, torch.bool, (count,), device)
    if commit.scores is not None:
        if not isinstance(commit.scores, Scores):
            raise who.error(f": Commit.scores is {_shown(commit.scores)}, and should be Scores")
        _check(who, "Commit.scores.valid", commit.scores.valid, torch.bool, (count, -1), device)
        if commit.scores.canvas is None:
            raise who.error(": Commit.scores answer no Evaluate of this step, so they are not those of the next")
        if commit.scores.names_held:
            raise who.error(": Commit.scores are those of an Evaluate with held, and not those of the next step")
    check_memory(who, "Commit.memory", commit.memory)


def check_progress(who: Asked, row: RowRecord, settle: Callable[[], None]) -> None:
    """Refuse to decode for ever.

    Args:
        row: before a step, with its counts.
        settle: writes what has come to the host of its trace.
    """
    assert row.counts is not None
    if row.may_be_stuck():
        settle()
        if row.committed_nothing():
            raise _of_row(who.error(
                f" gets nowhere: step {row.step} of row {row.row_id} was to commit {row.budget} of "
                f"{row.counts.masked} masks, and committed no token"
                f"{f' in the last {row.stalled} steps, though it looked ahead' if row.candidates else ''}"
            ), row, "nowhere")  # fmt: skip
    if not row.counts.entered and row.stalled > _most_steps(row):
        raise _of_row(who.error(
            f" gets nowhere: row {row.row_id} has spent {row.stalled} steps in a block of "
            f"{row.counts.block_size} positions without coming to an end, and {row.counts.masked} masks are left"
        ), row, "nowhere")  # fmt: skip


def _most_steps(row: RowRecord) -> int:
    """Steps that a row may spend without coming nearer to the end of its block."""
    assert row.counts is not None
    return max(LEAST_STEPS, MAX_STEPS * row.counts.block_size) + len(row.schedule)


def wrong_commit(who: Asked, row: RowRecord, step: int, what: str, number: int) -> MdmError:
    """The error for a row with a commit of a "strange" token, at a "stray" position, or with "foreign" scores."""
    said = {
        "strange": f"commits token {number}, which the model has not",
        "stray": f"commits position {number}, whose score is not valid: it is not masked, or not its to commit",
        "foreign": "returns scores of another canvas than its commit leads to: of a candidate that it did not choose",
    }
    return _of_row(who.error(f" {said[what]} (step {step} of row {row.row_id})"), row, what)


def check_answer(who: Asked, row: RowRecord, mask_id: int) -> None:
    """Refuse a row that ended with masks, of which its trace, all on the host, tells."""
    if left := row.tokens.count(mask_id):
        raise _of_row(who.error(
            f" ends row {row.row_id} in step {row.step} with {left} masks left: its finished says so too early, or it "
            "writes into the state"
        ), row, "nowhere")  # fmt: skip


def _of_row(error: MdmError, row: RowRecord, fault: str) -> MdmError:
    """``error`` with the prompt that it is of, and by which of its promises the sampler is at ``fault``."""
    error.request, error.fault = row.request, fault
    return error


def check_source(who: Asked, source: Sequence[int], rows: Sequence[Any]) -> None:
    """Refuse rows to continue that are not there, or that leave a prompt without any.

    Args:
        rows: records, each with the ``request`` that it serves.
    """
    if wrong := [row for row in source if not 0 <= row < len(rows)]:
        raise who.error(f": Commit.source names row {wrong[0]}, and there are {len(rows)}")
    if lost := {row.request for row in rows} - {rows[row].request for row in source}:
        raise who.error(f": Commit.source leaves no row of prompt {min(lost)}")


def check_evaluate(who: Asked, asked: Any, scores: Scores, state: State) -> None:
    """Refuse what is no ``Evaluate`` of candidates over these scores ``[B, K]`` of this state ``[B, L]``."""
    if not isinstance(asked, Evaluate) or not isinstance(asked.candidates, Commit):
        raise who.error(f": decide yielded {_shown(asked)}, which is no Evaluate of a Commit")
    if not isinstance(asked.valid, Tensor) or asked.valid.dim() != 2 or not asked.valid.shape[1]:
        raise who.error(f": Evaluate.valid is {_shown(asked.valid)}, and should be bool [B, N]")
    if asked.reach not in ("open", "span"):
        raise who.error(f': Evaluate.reach is {asked.reach!r}, and should be "open" or "span"')
    if asked.reach == "open" and who.plugin.reads == "left-out":
        raise who.error(': Evaluate.reach is "open", and what it reads "left-out" is of its block: use "span"')
    (count, width), number, device = scores.positions.shape, asked.valid.shape[1], scores.positions.device
    _check(who, "Evaluate.valid", asked.valid, torch.bool, (count, number), device)
    _check(who, "Evaluate.candidates.where", asked.candidates.where, torch.bool, (count, number, width), device)
    tokens = asked.candidates.tokens
    if isinstance(tokens, Tensor) and tokens.dim() == 3 and tokens.shape[1] == 1:  # the same of all candidates
        number = 1
    _check(who, "Evaluate.candidates.tokens", tokens, torch.int64, (count, number, width), device)
    if asked.held is not None:
        _check(who, "Evaluate.held", asked.held, torch.int64, tuple(state.tokens.shape), device)
        if asked.commits_a_candidate:
            raise who.error(": an Evaluate with held commits no candidate: its scores are not those of the next step")


def check_memory(who: Asked, name: str, memory: Any) -> None:
    if memory is not None and not isinstance(memory, Rowwise):
        raise who.error(f": {name} is {_shown(memory)}, and should be a Rowwise or None")


def check_plan(who: Asked, plan: Any, state: State) -> None:
    """Refuse what is no ``Plan`` of this state."""
    if not isinstance(plan, Plan):
        raise who.error(f": plan returned {_shown(plan)}, which is no Plan")
    for name in ("query", "write", "window"):
        _check(who, f"Plan.{name}", getattr(plan, name), torch.bool, tuple(state.tokens.shape), state.device)
    inside = who.plugin.inside_layers
    for name, value, like in (("watched", plan.watched, plan.query), ("picked", plan.picked, state.step)):
        if inside:
            _check(who, f"Plan.{name}", value, like.dtype, tuple(like.shape), state.device)
        elif value is not None:
            raise who.error(f": Plan.{name} is for a LayerCache, which it is not")


def ranked(who: Asked, layer: int, new: Tensor, kept: Tensor) -> Tensor:
    """How a cache mode ranks the watched positions of a layer."""
    rank: Tensor = who.ask("rank", layer, new, kept)
    _check(who, "what rank returned", rank, torch.float32, tuple(new.shape[:2]), new.device)
    return rank


def check_flags(who: Asked, name: str, flags: Any, state: State) -> None:
    """Refuse what is no answer for each row of this state."""
    _check(who, name, flags, torch.bool, tuple(state.step.shape), state.device)


def _check(who: Asked, name: str, value: Any, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> None:
    """Refuse a value that is no tensor of this kind; -1 in ``shape`` stands for any number."""
    if isinstance(value, Tensor) and value.dtype == dtype and value.shape == shape and value.device == device:
        return
    fits = isinstance(value, Tensor) and value.dtype == dtype and value.device == device
    if (
        not fits
        or len(value.shape) != len(shape)
        or any(n not in (-1, m) for n, m in zip(shape, value.shape, strict=True))
    ):
        wanted = f"{str(dtype).removeprefix('torch.')} {list(shape)} on {device}".replace("-1", "K")
        raise who.error(f": {name} is {_shown(value)}, and should be {wanted}")


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
