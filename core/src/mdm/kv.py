"""Keys and values kept between steps, and the two ways a forward meets them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


@dataclass(frozen=True)
class Slots:
    """One forward's place in the store.

    ``rows`` ``[R]`` are store rows; ``at`` ``[R, Q]`` the positions run, ``valid`` which of them count (None: all);
    ``write`` ``[R, Q]`` those to be kept (None: none). ``at`` None means the whole canvas, position by position.
    """

    rows: Tensor
    at: Tensor | None
    valid: Tensor | None
    write: Tensor | None


class _StoreLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer, ``[B, H, L, D]``, position p in slot p.

    Keys are stored after the rotary embedding, so slots need no order of their own.
    """

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, length = self.store.shape
        _, heads, _, width = key_states.shape
        self.keys = key_states.new_zeros(rows, heads, length, width)
        self.values = value_states.new_zeros(rows, heads, length, value_states.shape[-1])
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        return self._meet(self.keys, key_states), self._meet(self.values, value_states)

    def _meet(self, kept: Tensor, new: Tensor) -> Tensor:
        slots = self.store.slots
        if slots.at is None:
            if slots.write is not None:
                kept[slots.rows, :, : new.shape[2]] = new
            return new
        index = slots.at[:, None, :, None].expand_as(new)
        full = kept.index_select(0, slots.rows)
        if slots.valid is not None:
            # A padded query must leave its slot as it was.
            new = torch.where(slots.valid[:, None, :, None], new, full.gather(2, index))
        full.scatter_(2, index, new)
        if slots.write is not None:
            written = torch.where(slots.write[:, None, :, None], new, kept[slots.rows].gather(2, index))
            kept[slots.rows] = kept[slots.rows].scatter(2, index, written)
        return full

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.store.shape[1] if self.store.slots.at is not None else query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class Store(Cache):  # type: ignore[misc]
    """A K/V cache of fixed slots for B rows of length L, read-only unless a forward is told to write.

    Set ``slots`` before each forward.
    """

    def __init__(self, layers: int, rows: int, length: int) -> None:
        self.shape = (rows, length)
        self.slots = Slots(torch.arange(rows), None, None, None)
        super().__init__(layers=[_StoreLayer(self) for _ in range(layers)])

    def clone(self) -> Store:
        """The same keys and values in tensors of their own."""
        twin = Store(len(self.layers), *self.shape)
        for layer, other in zip(self.layers, twin.layers, strict=True):
            if layer.is_initialized:
                other.keys, other.values, other.is_initialized = layer.keys.clone(), layer.values.clone(), True
        return twin

    def take(self, index: Tensor) -> None:
        """rows := rows[index]"""
        self.shape = (index.shape[0], self.shape[1])
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys, layer.values = layer.keys[index], layer.values[index]

    def grow(self, rows: int, length: int) -> None:
        """Add ``rows`` empty rows and make every row ``length`` long."""
        more_rows, more_length = rows, length - self.shape[1]
        self.shape = (self.shape[0] + rows, length)
        pad = (0, 0, 0, more_length, 0, 0, 0, more_rows)
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys = torch.nn.functional.pad(layer.keys, pad)
                layer.values = torch.nn.functional.pad(layer.values, pad)
