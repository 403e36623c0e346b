"""What a cache mode makes of a forward's attention maps, layer by layer, so that no more than one is ever kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mdm.errors import MdmError
from mdm.models import attention
from mdm.protocols.cache import AttentionMap
from torch import Tensor


class Folding:
    """Folds the attention of R canvases that are run together, or in parts.

    With guidance it is that of the conditional branch.

    Args:
        fold: ``BaseCache.fold``.
        run: bool ``[R, L]``, the positions that are run.
        branches: forwards of a canvas.
    """

    def __init__(
        self, fold: Callable[[AttentionMap, Any], Tensor], run: Tensor, branches: int, done: list[Tensor] | None = None
    ) -> None:
        self._fold, self._run, self._branches = fold, run, branches
        self._done: list[Tensor] = [] if done is None else done
        self._folded: Tensor | None = None

    def __getitem__(self, rows: slice) -> Folding:
        return Folding(self._fold, self._run[rows], self._branches, self._done)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """In the block a model call runs these canvases. Parts go one after the other; one that fails counts not."""
        self._folded = None
        with attention.watched_by(self._see):
            yield
        if self._folded is None:
            raise MdmError(
                "the model shows no attention, which the cache reads: load it without attn_implementation, or decode "
                "with --cache none"
            )
        self._done.append(self._folded)

    def _see(self, weights: Tensor, positions: Tensor | None) -> None:
        run = self._run
        weights = weights[:: self._branches].to(run.device)  # a model on several devices
        if positions is None:
            positions = torch.arange(weights.shape[1], device=run.device).expand(len(run), -1)
            weights = torch.nn.functional.pad(weights, (0, run.shape[1] - weights.shape[2]))
        else:
            positions = positions[:: self._branches].to(run.device)
        self._folded = self._fold(AttentionMap(weights, positions, run.gather(1, positions)), self._folded)

    def among(self, index: Tensor, count: int, base: Tensor | None) -> Tensor:
        """What was folded ``[count, ...]``: of these canvases at ``index`` ``[R]``, of the others as in ``base``."""
        folded = torch.cat(self._done)
        base = folded.new_zeros(count, *folded.shape[1:]) if base is None else base
        return base.index_copy(0, index, folded)
