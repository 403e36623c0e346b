"""Forwards of which each layer computes a part, and the features of every layer that are added for all other positions.

The modules of transformers' layers are called as they are, on the positions that are to be computed. Attention meets
the store as its cache, and gets from it the keys and values of the whole canvas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mdm.errors import MdmError
from mdm.models import products
from mdm.models.attention import ForwardLayout
from mdm.models.kv_store import KVStore, StoredLayer, StoreView, index_of
from mdm.models.model import Model
from mdm.models.transfer import to_device
from torch import Tensor, nn

LAYER = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
"""What a layer is made of."""


def require(model: Model, *, compiled: bool) -> None:
    """Refuse a model whose layers cannot be computed in part.

    Raises:
        MdmError: they are compiled, are not those of a transformers body, or do not lie on one device.
    """
    why, layers = None, getattr(model.body, "layers", None)
    if type(model).hidden is not Model.hidden or not isinstance(layers, nn.ModuleList):
        why = "has a forward of its own"
    elif any({name for name, _ in layer.named_children()} != LAYER for layer in layers):
        why = "has layers of another kind"
    elif any(hasattr(module, "_hf_hook") for module in model.body.modules()):
        why = "has weights that do not lie on one device"
    if why is not None:
        raise MdmError(f"{model.name or 'the model'} {why}, so no cache works inside its layers: use --cache none")
    if compiled:
        raise MdmError("a cache that works inside the layers does not go with --compile: drop one of them")


class FeatureLayer(StoredLayer):
    """Features of one layer, ``[B, H, L, D]``: keys, values and, with H = 1, what attention and MLP gave."""

    names = (*StoredLayer.names, "attended", "fed")

    def __init__(self, rows: int, length: int) -> None:
        super().__init__(rows, length)
        self.attended = self.fed = None


class FeatureStore(KVStore):
    """Features of up to B rows of length L, in all layers but the first ``full_layers``.

    Args:
        rank: see ``LayerCache.rank``.
    """

    def __init__(
        self, rank: Callable[[int, Tensor, Tensor], Tensor], full_layers: int, model: Model, rows: int, length: int
    ) -> None:
        super().__init__(model, rows, length)
        self.rank, self.full_layers = rank, full_layers
        self.layers = [FeatureLayer(rows, length) for _ in self.layers]

    def full(self, rows: Sequence[int], write: bool) -> FeatureView:
        return FeatureView(self, ForwardLayout(rows=index_of(rows, self.device), write=write))


class FeatureView(StoreView):
    """The store as one forward meets it, which runs whole canvases or parts of their layers."""

    store: FeatureStore
    always: Tensor | None = None
    """bool ``[R, L]``: the positions that every layer computes; None: all"""

    def of_parts(self, always: Tensor, widths: Sequence[int], watched: Tensor, watches: Sequence[int]) -> FeatureView:
        """This view for a forward that computes in each layer ``widths[r]`` positions of canvas r.

        These are those ``always`` computed, and of those ``watched``, ``watches[r]`` in all, as many as there is room
        for; both bool ``[R, L]``.
        """
        self.always, self.widths = always, widths
        self.watched = _first(watched.to(torch.int8), watches) if max(watches) else None
        return self

    def run(self, body: Any, tokens: Tensor, positions: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        """Final hidden states; the arguments are those of ``Model.hidden``."""
        hidden: Tensor = body.embed_tokens(tokens)
        rope = body.rotary_emb(hidden, positions)
        for number, layer in enumerate(body.layers):
            hidden = LayerForward(self, number, hidden.shape[1])(layer, hidden, rope, mask)
        out: Tensor = body.norm(hidden)
        return out


class LayerForward:
    """One layer in one forward of canvases of length L. Its attention takes it as a cache."""

    def __init__(self, view: FeatureView, number: int, length: int) -> None:
        self.view, self.number, self.length = view, number, length
        self.stored = view.store.layers[number] if number >= view.store.full_layers else None
        self.positions: Tensor | None = None
        """int64 ``[R, W]``: the positions that are computed, every one another of its row; None: all"""
        self.valid: Tensor | None = None
        """bool ``[R, W]``: those of them that count; None: all"""
        self._features: dict[str, Tensor] = {}

    def __call__(self, layer: Any, hidden: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """Hidden states ``[R, L, D]`` behind the layer, of those before it."""
        normed = layer.input_layernorm(hidden)
        if self.stored is not None and self.view.always is not None:
            self._choose(self.view.always[:, : self.length], layer, normed)
        if self.positions is not None and not max(self.view.widths):
            return hidden + self._kept("attended")[:, 0] + self._kept("fed")[:, 0]
        out = layer.self_attn(
            hidden_states=self._take(normed),
            position_embeddings=tuple(map(self._take, rope)),
            attention_mask=mask if mask is None or self.positions is None else mask[:, :, : self.positions.shape[1]],
            past_key_values=self,
            is_causal=False,
        )[0]
        hidden = hidden + self._put("attended", out[:, None])[:, 0]
        out = layer.mlp(layer.post_attention_layernorm(self._take(hidden)))
        return hidden + self._put("fed", out[:, None])[:, 0]

    def update(self, keys: Tensor, values: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """What the queries attend to: the canvas, with these ``keys`` and ``values`` at the positions computed."""
        return self._put("keys", keys), self._put("values", values)

    def _choose(self, always: Tensor, layer: Any, normed: Tensor) -> None:
        """Set which positions are computed; the values of watched ones are written."""
        rank = torch.full(always.shape, -torch.inf, device=normed.device)
        if self.view.watched is not None:
            self.positions, self.valid = self.view.watched
            new, old = products.alone(layer.self_attn.v_proj, self._take(normed)), self._kept("values")[self._where]
            changed = self.view.store.rank(self.number, new, old.flatten(2))
            if self.valid is not None:
                changed = changed.masked_fill(~self.valid, -torch.inf)
            rank = rank.scatter(1, self.positions, changed)
            self._put("values", new.view(old.shape).transpose(1, 2))
        self.positions, self.valid = _first(rank.masked_fill(always, torch.inf), self.view.widths)

    def _take(self, of_canvas: Tensor) -> Tensor:
        """``[R, W, D]`` of ``[R, L, D]``"""
        if self.positions is None:
            return of_canvas
        return of_canvas.gather(1, self.positions[..., None].expand(-1, -1, of_canvas.shape[2]))

    def _kept(self, name: str) -> Tensor:
        """A feature ``[R, H, L, D]`` of the canvases: as it lies in the store, or a copy that this forward works on."""
        if name not in self._features:
            layout = self.view.layout
            kept = getattr(self.stored, name)[layout.rows, :, : self.length]
            self._features[name] = kept if layout.writes or isinstance(layout.rows, Tensor) else kept.clone()
        return self._features[name]

    @property
    def _where(self) -> tuple[Tensor, slice, Tensor]:
        """The positions that are computed as an index into features."""
        assert self.positions is not None
        return torch.arange(len(self.positions), device=self.positions.device)[:, None], slice(None), self.positions

    def _put(self, name: str, new: Tensor) -> Tensor:
        """The feature ``[R, H, L, D]`` with ``new`` ``[R, H, W, D]`` at what is computed, stored if it is to be."""
        rows, writes = self.view.layout.rows, self.view.layout.writes
        if self.stored is None or (self.positions is None and not writes):
            return new
        if self.positions is None:
            if getattr(self.stored, name) is None:
                (most, length), heads, width = self.stored.shape, new.shape[1], new.shape[3]
                setattr(self.stored, name, new.new_zeros(most, heads, length, width))
            getattr(self.stored, name)[rows, :, : self.length] = new
            return new
        kept, where, new = self._kept(name), self._where, new.transpose(1, 2)
        if self.valid is not None:
            new = torch.where(self.valid[..., None, None], new, kept[where])
        kept[where] = new
        if writes and isinstance(rows, Tensor):
            getattr(self.stored, name)[rows[:, None], :, self.positions] = new
        return kept


def _first(rank: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """Of each row of ``rank`` ``[R, L]`` the ``counts[r]`` places with the largest numbers, and which these are.

    They are int64 ``[R, W]``, filled up with other places of the row; of equal numbers the first ones are taken.
    """
    width = max(counts)
    places = rank.sort(dim=1, descending=True, stable=True).indices[:, :width]
    if min(counts) == width:
        return places, None
    return places, torch.arange(width, device=rank.device) < to_device(counts, rank.device)[:, None]
