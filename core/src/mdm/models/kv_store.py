"""Keys and values kept between steps, and the two ways a forward meets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from mdm.errors import MdmError
from mdm.models.attention import CachedKV, Slots, is_installed
from mdm.models.transfer import to_device
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from mdm.models.model import Model


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
    ) -> tuple[Tensor | CachedKV, Tensor | CachedKV]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        return self._meet(self.keys, key_states), self._meet(self.values, value_states)

    def _meet(self, kept: Tensor, new: Tensor) -> Tensor | CachedKV:
        slots = self.store.slots
        if slots.at is None:
            if slots.write is True:
                kept[slots.rows, :, : new.shape[2]] = new
            return new
        if isinstance(slots.write, Tensor):
            assert isinstance(slots.rows, Tensor)
            place = (slots.rows[:, None], slice(None), slots.at)
            kept[place] = torch.where(slots.write[..., None, None], new.transpose(1, 2), kept[place])
        assert slots.kept is not None
        return CachedKV(kept[slots.kept], new, slots)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class Store(Cache):  # type: ignore[misc]
    """A K/V cache of fixed slots for B rows of length L, read-only unless a forward is told to write.

    Say ``whole`` or ``window`` before each forward.

    Raises:
        MdmError: the model attends by something that cannot meet kept keys.
    """

    def __init__(self, model: Model, rows: int, length: int) -> None:
        config = model.body.config
        if not is_installed(model.body):
            raise MdmError(
                f"{model.name or 'the model'} keeps keys and values with sdpa attention only: load it without "
                "attn_implementation, or decode with --cache none"
            )
        self.model, self.dtype = model, model.dtype
        self.shape = (rows, length)
        self.share = int(config.num_attention_heads // config.num_key_value_heads)  # type: ignore[union-attr, operator]
        self.slots = Slots(slice(None), False)
        super().__init__(layers=[_StoreLayer(self) for _ in range(model.layers)])

    def whole(self, rows: Sequence[int], write: bool) -> None:
        """The next forward runs whole canvases, which belong to ``rows``; it looks at nothing that is kept."""
        self.slots = Slots(_index(rows, self.model.device), write)

    def window(
        self,
        rows: Sequence[int],
        at: Tensor,
        *,
        valid: Tensor | None = None,
        write: Tensor | None = None,
        real: Tensor | None = None,
        grid: int | None = None,
    ) -> None:
        """The next forward runs positions ``at`` ``[R, Q]``, over what is kept of ``rows`` at all others.

        Rows that continue from the same store row run the same positions.

        Args:
            valid: bool ``[R, Q]``, which of ``at`` count (default: all).
            write: bool ``[R, Q]``, which are kept (default: none); these are valid, and no two rows the same.
            real: bool ``[R, L]``, the positions that are not padding (default: all).
            grid: a position sees its own block of this size and those before (default: everything).
        """
        device, length = at.device, self.shape[1]
        groups: dict[int, list[int]] = {row: [] for row in sorted(rows)}
        for i, row in enumerate(rows):
            groups[row].append(i)
        size = max(len(group) for group in groups.values())
        order = [group[min(n, len(group) - 1)] for group in groups.values() for n in range(size)]
        gather = scatter = None
        first: slice | Tensor = slice(None, None, size)
        if order != list(range(len(rows))):
            where = {i: n for n, i in reversed(list(enumerate(order)))}
            gather, scatter = to_device(order, device), to_device([where[i] for i in range(len(rows))], device)
            first = gather[::size]
        theirs = at[first]
        # What a position does not see: of what is kept the window itself, and padding.
        never = torch.finfo(self.dtype).min
        kept = torch.zeros(len(groups), length, dtype=self.dtype, device=device)
        kept = kept.scatter_(1, theirs, never if valid is None else (valid[first] * never).to(self.dtype))
        if real is not None:
            kept = kept.masked_fill_(~real[first, :length], never)
        kept = kept[:, None]
        own = None if valid is None else ~valid[:, None]
        if grid is not None:
            mine = at // grid
            slot = torch.arange(length, device=device) // grid
            kept = kept.masked_fill(slot > mine[first][..., None], never)
            later = mine[:, None] > mine[..., None]
            own = later if own is None else own | later
        if own is not None:
            own = torch.zeros(own.shape, dtype=self.dtype, device=device).masked_fill_(own, never)
        self.slots = Slots(
            slice(None) if write is None else to_device(rows, device), False if write is None else write, at,
            _index(list(groups), device), gather, scatter, size, _folded(kept, self.share * size),
            None if own is None else _folded(own, self.share),
        )  # fmt: skip

    def clone(self) -> Store:
        """The same keys and values in tensors of their own."""
        twin = Store(self.model, *self.shape)
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


def _folded(mask: Tensor, times: int) -> Tensor:
    """``[G, 1, Q, T]`` of ``mask`` ``[G, Q, T]``, repeated for the queries that are folded together."""
    mask = mask[:, None]
    return mask if mask.shape[2] == 1 or times == 1 else mask.repeat(1, 1, times, 1)


def _index(rows: Sequence[int], device: torch.device) -> slice | Tensor:
    """Rows as a slice, which copies nothing, where they follow each other."""
    if list(rows) == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return to_device(rows, device)
