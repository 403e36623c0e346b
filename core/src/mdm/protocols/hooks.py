"""Hooks: calls by which a package watches decoding without being a sampler, a cache or a model.

A package announces a hook by an entry point of the group ``mdm.hooks`` that names a module or an object with
methods marked ``@mdm.protocols.hookimpl``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pluggy

Line = dict[str, Any]
"""One line of trace.jsonl: row, step, positions, tokens, entropy, kind, candidates, forwards, rows.

``entropy`` (nats) has a number for each position. ``kind`` is what happened to the positions: ``commit``, ``bypass`` (a
commit without the sampler's usual deliberation), ``edit`` (a committed token was replaced), ``remask`` (it was masked
again) or ``fill`` (filled in behind an end token). A step of a row has one line for each kind, of which the first
carries the costs: candidates run, model calls (``forwards``) and canvases in them (``rows``). A step that does nothing
has one line without positions.

A full trace adds ``confidence``, a list beside ``entropy``, and ``weighed``: of each candidate that was compared its
``positions``, ``J`` (what the sampler maximised), ``C`` (entropy paid) and ``H`` (state uncertainty left), in nats.
"""

PAID = ("commit", "bypass")
"""Kinds of lines whose entropy counts as paid, in the cumulative entropy."""


def plain(line: Line) -> Line:
    """A line without what only a full trace has."""
    return {key: value for key, value in line.items() if key not in ("confidence", "weighed")}


@dataclass(frozen=True)
class StepEvent:
    """One step of all rows, as given to ``on_step``: the trace lines that the step added."""

    lines: tuple[Line, ...]


hookspec = pluggy.HookspecMarker("mdm")
hookimpl = pluggy.HookimplMarker("mdm")


class Hooks:
    """Hook specifications. Return values are ignored."""

    @hookspec
    def on_step(self, event: Any) -> None:
        """After each step: ``event.lines`` are the trace lines it added, of all rows."""

    @hookspec
    def on_finish(self, result: Any, example: Any) -> None:
        """An example of a run is decoded, graded and written. An implementation may leave out either argument.

        ``result`` is its ``Result``, or None where it could not be decoded. ``example`` is its line of
        ``results.jsonl`` as an object: ``id``, ``metrics``, ``error`` and so on.
        """
