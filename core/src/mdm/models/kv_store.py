"""K/V store with one slot per position. A forward runs whole canvases, or a window of them over the stored keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from itertools import count
from typing import ClassVar, NamedTuple

import torch
from mdm.errors import MdmError
from mdm.models.attention import CachedKV, ForwardLayout, aligned, hiding, is_installed
from mdm.models.model import Model
from mdm.models.transfer import to_device
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class StoredLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, ``[B, H, L, D]``, position p at index p.

    Keys are stored after the rotary embedding, so they need no order of their own.
    """

    names: ClassVar[tuple[str, ...]] = ("keys", "values")
    """What is stored, once there is any of it."""

    def __init__(self, rows: int, length: int) -> None:
        super().__init__()
        self.shape = (rows, length)  # and no reference to the store: without a circle its memory is freed at once

    def change(self, change: Callable[[Tensor], Tensor]) -> None:
        """Put what ``change`` gives of each tensor in its place."""
        for name in self.names:
            if (stored := getattr(self, name)) is not None:
                setattr(self, name, change(stored))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, length = self.shape
        _, heads, _, width = key_states.shape
        self.keys = key_states.new_zeros(rows, heads, length, width)
        self.values = value_states.new_zeros(rows, heads, length, value_states.shape[-1])
        self.is_initialized = True

    def update(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("a forward meets the store through a StoreView")

    def cached_kv(
        self, key_states: Tensor, value_states: Tensor, layout: ForwardLayout
    ) -> tuple[Tensor | CachedKV, Tensor | CachedKV]:
        """What a forward's queries attend to: its own keys and values, and the stored ones where it runs a window."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        return _store_and_meet(self.keys, key_states, layout), _store_and_meet(self.values, value_states, layout)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


def _store_and_meet(stored: Tensor, new: Tensor, layout: ForwardLayout) -> Tensor | CachedKV:
    """Write what the layout says of ``new`` into ``stored``, and give what a query attends to."""
    if layout.positions is None:
        if layout.write is True:
            stored[layout.rows, :, : new.shape[2]] = new
        return new
    if isinstance(layout.write, Tensor):
        assert isinstance(layout.rows, Tensor)
        where = (layout.rows[:, None], slice(None), layout.positions)
        stored[where] = torch.where(layout.write[..., None, None], new.transpose(1, 2), stored[where])
    assert layout.stored_rows is not None
    return CachedKV(stored[layout.stored_rows], new, layout)


class StoreView(Cache):  # type: ignore[misc]
    """The store as one forward meets it: what transformers takes as ``past_key_values``."""

    def __init__(self, store: KVStore, layout: ForwardLayout) -> None:
        super().__init__(layers=store.layers)
        self.store, self.layout = store, layout

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor | CachedKV, Tensor | CachedKV]:
        return self.store.layers[layer_idx].cached_kv(key_states, value_states, self.layout)


_generations = count(1)


class KVStore:
    """Keys and values of up to B rows of length L, in all layers. Only a forward whose layout writes changes them.

    Rows that leave make room for others: memory is made anew only for more rows, or longer ones, and then there is
    another ``generation``, a number that no other store has had.

    Raises:
        MdmError: the model's attention cannot attend to stored keys.
    """

    def __init__(self, model: Model, rows: int, length: int) -> None:
        config = model.body.config
        if not is_installed(model.body):
            raise MdmError(
                f"{model.name or 'the model'} keeps keys and values with sdpa attention only: load it without "
                "attn_implementation, or decode with --cache none"
            )
        self.device, self.dtype, self.generation = model.device, model.dtype, next(_generations)
        self.shape = (rows, length)
        self.queries_per_key = int(config.num_attention_heads // config.num_key_value_heads)  # type: ignore[union-attr, operator]
        self.layers = [StoredLayer(rows, length) for _ in range(model.layers)]

    def full(self, rows: Sequence[int], write: bool) -> StoreView:
        """For a forward over whole canvases, which belong to ``rows`` and attend to nothing that is stored."""
        return StoreView(self, ForwardLayout(rows=index_of(rows, self.device), write=write))

    def window(
        self,
        rows: Sequence[int],
        positions: Tensor,
        *,
        valid: Tensor | None = None,
        write: Tensor | None = None,
        in_canvas: Tensor | None = None,
        block_length: int | None = None,
    ) -> StoreView:
        """For a forward over ``positions`` ``[R, Q]``, which attends to what is stored of ``rows`` at all others.

        Rows that continue from the same store row run the same positions.

        Args:
            valid: bool ``[R, Q]``, which of ``positions`` count (default: all).
            write: bool ``[R, Q]``, which are stored (default: none); these are valid, and no two rows the same.
            in_canvas: bool ``[R, L]``, the positions that are not padding (default: all).
            block_length: a position sees its own block of this length and those before (default: everything).
        """
        device = positions.device
        groups = _group_rows(rows, device)
        stored_mask, own_mask = self._masks(positions, groups.first, valid, in_canvas, block_length)
        layout = ForwardLayout(
            rows=slice(None) if write is None else to_device(rows, device),
            write=False if write is None else write,
            positions=positions,
            stored_rows=index_of(groups.stored_rows, device),
            group_index=groups.group_index,
            ungroup_index=groups.ungroup_index,
            group_size=groups.size,
            stored_mask=aligned(_fold(stored_mask, self.queries_per_key * groups.size)),
            own_mask=None if own_mask is None else aligned(_fold(own_mask, self.queries_per_key)),
        )
        return StoreView(self, layout)

    def _masks(
        self,
        positions: Tensor,
        first: slice | Tensor,
        valid: Tensor | None,
        in_canvas: Tensor | None,
        block_length: int | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Additive masks: over what is stored ``[G, 1 or Q, L]``, and over a window's own keys ``[R, 1 or Q, Q]``."""
        device, length, lowest = positions.device, self.shape[1], hiding(self.dtype)
        window = positions[first]
        # Of what is stored a query sees neither the window, whose keys are run afresh, nor padding.
        stored = torch.zeros(len(window), length, dtype=self.dtype, device=device)
        stored = stored.scatter_(1, window, lowest if valid is None else (valid[first] * lowest).to(self.dtype))
        if in_canvas is not None:
            stored = stored.masked_fill_(~in_canvas[first, :length], lowest)
        stored = stored[:, None]
        hidden = None if valid is None else ~valid[:, None]
        if block_length is not None:
            block = positions // block_length
            stored_block = torch.arange(length, device=device) // block_length
            stored = stored.masked_fill(stored_block > block[first][..., None], lowest)
            later = block[:, None] > block[..., None]
            hidden = later if hidden is None else hidden | later
        if hidden is None:
            return stored, None
        own = torch.zeros(hidden.shape, dtype=self.dtype, device=device).masked_fill_(hidden, lowest)
        return stored, own

    def clone(self) -> KVStore:
        """The same keys and values in tensors of their own."""
        twin = copy(self)
        twin.generation, twin.layers = next(_generations), [copy(layer) for layer in self.layers]
        for layer in twin.layers:
            layer.change(Tensor.clone)
        return twin

    def select_rows(self, index: Tensor) -> None:
        """The first rows := rows[index]; those behind them mean nothing."""
        kept = index.shape[0]
        if kept > self.shape[0]:
            self._reshape(lambda stored: stored[index], kept, self.shape[1])
            return

        def moved(stored: Tensor) -> Tensor:
            stored[:kept] = stored[index]
            return stored

        for layer in self.layers:
            layer.change(moved)

    def make_room(self, rows: int, length: int) -> None:
        """Have ``rows`` rows of ``length`` at least; what is stored stays where it is in its row."""
        rows, length = max(rows, self.shape[0]), max(length, self.shape[1])
        if (rows, length) != self.shape:
            padding = (0, 0, 0, length - self.shape[1], 0, 0, 0, rows - self.shape[0])
            self._reshape(lambda stored: torch.nn.functional.pad(stored, padding), rows, length)

    def trim(self, rows: int, length: int) -> None:
        """Have ``rows`` rows of ``length`` at most."""
        rows, length = min(rows, self.shape[0]), min(length, self.shape[1])
        if (rows, length) != self.shape:
            self._reshape(lambda stored: stored[:rows, :, :length].clone(), rows, length)

    def _reshape(self, change: Callable[[Tensor], Tensor], rows: int, length: int) -> None:
        self.shape, self.generation = (rows, length), next(_generations)
        for layer in self.layers:
            layer.shape = self.shape
            layer.change(change)


class _Groups(NamedTuple):
    """R rows grouped by the store row they continue from, each group as large as the largest."""

    stored_rows: list[int]
    size: int
    first: slice | Tensor
    """of each group, the first of its rows"""
    group_index: Tensor | None
    ungroup_index: Tensor | None
    """see ``ForwardLayout``"""


def _group_rows(rows: Sequence[int], device: torch.device) -> _Groups:
    members: dict[int, list[int]] = {row: [] for row in sorted(rows)}
    for i, row in enumerate(rows):
        members[row].append(i)
    size = max(map(len, members.values()))
    order = [group[min(n, len(group) - 1)] for group in members.values() for n in range(size)]
    if order == list(range(len(rows))):
        return _Groups(list(members), size, slice(None, None, size), None, None)
    place = {i: n for n, i in reversed(list(enumerate(order)))}
    index = to_device(order, device)
    ungroup = to_device([place[i] for i in range(len(rows))], device)
    return _Groups(list(members), size, index[::size], index, ungroup)


def _fold(mask: Tensor, times: int) -> Tensor:
    """``[G, 1, Q, T]`` of ``mask`` ``[G, Q, T]``, repeated for the queries that are folded together."""
    mask = mask[:, None]
    return mask if mask.shape[2] == 1 or times == 1 else mask.repeat(1, 1, times, 1)


def index_of(rows: Sequence[int], device: torch.device) -> slice | Tensor:
    """Rows as a slice, which copies nothing, where they follow each other."""
    if list(rows) == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return to_device(rows, device)
