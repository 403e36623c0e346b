"""The keyed random numbers of the rows of an engine, step by step."""

from __future__ import annotations

from collections.abc import Sequence

from mdm.engine.rows import RowRecord
from mdm.protocols.draws import Draws, NoiseCache, host_keys
from mdm.protocols.state import State
from mdm.protocols.upload import to_device
from torch import Tensor


class RowDraws:
    """Makes the draws of each step, with noise of a block's positions made for many steps at once.

    Args:
        ahead: whether noise is made ahead: rows see their blocks only.
    """

    def __init__(self, ahead: bool) -> None:
        self._ahead, self._forked = ahead, False
        self._noise: NoiseCache | None = None
        self._offset = 0

    def restart(self) -> None:
        """Rows have come, gone or entered a block."""
        self._noise = None

    def fork_ids(self, rows: Sequence[RowRecord], state: State, turn: Sequence[int]) -> Tensor:
        """int64 ``[B]``: the ids of rows of which each is taken for the ``turn``-th time; they are known here only."""
        self._forked = True
        draws = Draws(_seeds(rows, state), state.row_id, state.step)
        return draws.fork_ids(to_device(turn, state.device))

    def of_step(self, rows: Sequence[RowRecord], state: State) -> Draws:
        """The draws of the step that begins."""
        host = None
        if not self._forked:  # the ids of forks are made on the device
            columns = zip(*((row.settings.seed, row.row_id, row.step) for row in rows), strict=True)
            host = host_keys(*columns)
        if self._noise is None and self._ahead:
            self._noise, self._offset = NoiseCache(state.block_bounds[:, 0], max(row.width for row in rows)), 0
        offset, self._offset = self._offset, self._offset + 1
        return Draws(_seeds(rows, state), state.row_id, state.step, host, self._noise, offset)


def _seeds(rows: Sequence[RowRecord], state: State) -> int | Tensor:
    """The seed of all rows, or int64 ``[B]`` where they have different ones."""
    seeds = [row.settings.seed for row in rows]
    return seeds[0] if len(set(seeds)) == 1 else to_device(seeds, state.device)
