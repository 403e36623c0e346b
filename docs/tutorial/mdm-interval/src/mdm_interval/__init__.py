"""Runs the block alone, and the whole canvas once every few steps."""

from mdm.protocols import BaseCache, NoOptions, Plan
from pydantic import Field


class IntervalOptions(NoOptions):
    """When the whole canvas is run."""

    every: int = Field(4, ge=1, description="steps of a block from one run of the whole canvas to the next")


class Interval(BaseCache):
    """Runs the whole canvas as a block begins and every ``every`` steps of it, and in between the block alone.

    With ``every`` 1 it decodes as cache none does. On block-causal attention it does so always, as a block sees none
    but those before it, and these are final. On full attention a step in between is approximate: the block attends to
    the keys and values that all other positions had when the whole canvas was run last, up to ``every`` - 1 steps ago.
    """

    Options = IntervalOptions

    def plan(self, state, spec):
        due = state.block_step % self.options.every == 0  # [B]; the first step of a block is step 0
        whole = state.in_canvas & due[:, None]
        run = whole | state.in_block
        # A lookahead runs what its step runs, so that it is as exact as the step is.
        return Plan(query=run, write=whole, window=run)
