"""Attention of a window over stored keys and values and over its own, without a copy of what is stored.

The softmax over both sets is put together from the softmax over each and their log-sum-exps, as flash attention
(arXiv:2205.14135) does with its tiles. All rows of a forward that continue from one stored row (candidates) are folded
into one long query over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from mdm.errors import MdmError
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION_NAME = "mdm"
"""The name of this attention in transformers."""


@dataclass(frozen=True, kw_only=True)
class ForwardLayout:
    """Where one forward's rows and positions lie in the K/V store.

    R rows continue from G store rows, at most N of them from the same one.
    """

    rows: slice | Tensor
    """the store row of each of the R"""
    write: Tensor | bool
    """bool ``[R, Q]``: positions whose keys and values are stored; of whole canvases all or none"""
    positions: Tensor | None = None
    """int64 ``[R, Q]``: the positions that are run; None is the whole canvas, position by position"""
    stored_rows: slice | Tensor | None = None
    """the G store rows, ascending"""
    group_index: Tensor | None = None
    """``[G * N]``: which of the R rows stand in each group; None where they stand in that order already"""
    ungroup_index: Tensor | None = None
    """``[R]``: where each row stands among them"""
    group_size: int = 1
    """N"""
    stored_mask: Tensor | None = None
    """additive, ``[G, 1, 1, L]`` or ``[G, 1, H/h * N * Q, L]`` for H query heads over h stored heads"""
    own_mask: Tensor | None = None
    """additive, ``[R, 1, 1, Q]`` or ``[R, 1, H/h * Q, Q]``"""

    @property
    def writes(self) -> bool:
        return self.write is not False

    def group(self, rows: Tensor) -> Tensor:
        """``[G, N, ...]`` of ``[R, ...]``: rows of one store row side by side, the last one repeated."""
        rows = rows if self.group_index is None else rows[self.group_index]
        return rows.view(-1, self.group_size, *rows.shape[1:])

    def ungroup(self, groups: Tensor) -> Tensor:
        """``[R, ...]`` of ``[G, N, ...]``"""
        rows = groups.flatten(0, 1)
        return rows if self.ungroup_index is None else rows[self.ungroup_index]


class CachedKV(NamedTuple):
    """Keys (or values) that a window's queries attend to: ``stored`` ``[G, h, L, D]`` and ``own`` ``[R, h, Q, D]``."""

    stored: Tensor
    own: Tensor
    layout: ForwardLayout


class _Forward(NamedTuple):
    """What a compiled forward's attention is not given: how many rows lie end to end, and what they may see."""

    rows: int
    mask: Tensor | None
    cache: Any


_forward: ContextVar[_Forward] = ContextVar("mdm.models.attention.forward")
_layer: ContextVar[int] = ContextVar("mdm.models.attention.layer")


@contextmanager
def end_to_end(rows: int, mask: Tensor | None, cache: Any) -> Iterator[None]:
    """In the block a compiled forward's one row is ``rows`` rows end to end, under this mask and over this cache."""
    token = _forward.set(_Forward(rows, mask, cache))
    try:
        yield
    finally:
        _forward.reset(token)


@contextmanager
def in_layer(number: int) -> Iterator[None]:
    """In the block it is this layer that attends."""
    token = _layer.set(number)
    try:
        yield
    finally:
        _layer.reset(token)


Watch = Callable[[Tensor, Tensor | None], None]
"""Is shown a layer's attention: float32 ``[R, Q, T]``, the mean over heads, and which positions the queries are, int64
``[R, Q]`` (None: the first ones)"""
_watch: ContextVar[Watch | None] = ContextVar("mdm.models.attention.watch", default=None)


@contextmanager
def watched_by(watch: Watch) -> Iterator[None]:
    """In the block, and in this thread, ``watch`` is shown what each layer attends to, one after the other.

    What the layers give is the same. No two rows of a forward may continue from the same stored row.
    """
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def hiding(dtype: torch.dtype) -> float:
    """What a mask of this type adds to a score that is not to count.

    Kernels go on in powers of two, 1.44 times the score. The lowest number there is would become -inf by that, and of a
    query that sees none of the keys CUDA's kernel would say that the log-sum-exp is 0: a weight like any other.
    """
    return torch.finfo(dtype).min / 2


def is_installed(body: nn.Module) -> bool:
    """Whether a body attends by ``attend``."""
    return getattr(getattr(body, "config", None), "_attn_implementation", None) == ATTENTION_NAME


def install(body: nn.Module) -> None:
    """Make a transformers body attend by ``attend`` where it would by sdpa, which is the same without stored keys."""
    config = getattr(body, "config", None)
    if getattr(body, "_supports_attention_backend", False) and getattr(config, "_attn_implementation", "") == "sdpa":
        AttentionInterface.register(ATTENTION_NAME, attend)
        AttentionMaskInterface.register(ATTENTION_NAME, _mask)
        body.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]


def _mask(*, allow_is_bidirectional_skip: bool = False, **kwargs: Any) -> Tensor | None:
    """transformers' mask for sdpa, but none where every position sees every other.

    Some versions of transformers make an all-visible one while torch traces or a CUDA stream captures. A causal layer
    never allows this skip.
    """
    unmasked = kwargs.get("attention_mask") is None and kwargs.get("local_size") is None
    if allow_is_bidirectional_skip and unmasked:
        return None
    mask: Tensor | None = sdpa_mask(allow_is_bidirectional_skip=allow_is_bidirectional_skip, **kwargs)
    return mask


def attend(
    module: nn.Module, query: Tensor, key: Any, value: Any, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface: ``query`` ``[R, H, Q, D]`` to ``[R, Q, H, D]``.

    ``key`` and ``value`` are what the cache's update returned: tensors, or ``CachedKV``, which carry their own masks.
    """
    # Not is_compiling, which is true for every thread while one of them compiles.
    if torch.compiler.is_dynamo_compiling():
        if attention_mask is not None or kwargs.get("is_causal", module.is_causal):
            raise MdmError("its layers mask by themselves")
        out: Tensor = torch.ops.mdm.attend(query, key, value, kwargs["scaling"])
        return out, None
    if (watch := _watch.get()) is not None:
        positions = key.layout.positions if isinstance(key, CachedKV) else None
        watch(mean_weights(query, key, attention_mask, kwargs["scaling"]), positions)
    if not isinstance(key, CachedKV):
        whole: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return whole
    layout, scale = key.layout, kwargs["scaling"]
    own, own_lse = _attend_grouped(query[:, None], key.own, value.own, layout.own_mask, scale)
    stored, stored_lse = _attend_grouped(layout.group(query), key.stored, value.stored, layout.stored_mask, scale)
    share = (layout.ungroup(stored_lse) - own_lse[:, 0]).sigmoid()
    return own[:, 0].lerp(layout.ungroup(stored), share[..., None].to(own.dtype)).transpose(1, 2), None


def mean_weights(query: Tensor, key: Tensor | CachedKV, mask: Tensor | None, scale: float) -> Tensor:
    """How much each query attends to each position: float32 ``[R, Q, T]``, the mean over heads.

    Arguments as in ``attend``, whose kernels keep these numbers to themselves: they are computed beside them.
    """
    own = key.own if isinstance(key, CachedKV) else key
    length = query.shape[2]
    split = query.view(len(query), own.shape[1], -1, *query.shape[2:])  # heads that share a stored head side by side

    def scores(keys: Tensor, mask: Tensor | None) -> Tensor:
        products = torch.matmul(split, keys[:, :, None].transpose(-1, -2)).float() * scale
        return products if mask is None else products + mask[:, :, None, :length]

    if not isinstance(key, CachedKV):
        return scores(key, mask).softmax(-1).mean((1, 2))
    layout = key.layout
    assert layout.positions is not None
    parts = [scores(key.stored, layout.stored_mask), scores(own, layout.own_mask)]
    weights, own_weights = torch.cat(parts, -1).softmax(-1).mean((1, 2)).tensor_split([-length], -1)
    return weights.scatter_add(2, layout.positions[:, None].expand_as(own_weights), own_weights)


def _attend_in_context(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """``attend`` as one operation of a compiled layer, ``[1, H, R * Q, D]`` to ``[1, R * Q, H, D]``."""
    rows, mask, cache = _forward.get()
    module: Any = SimpleNamespace(num_key_value_groups=query.shape[1] // key.shape[1])
    query, key, value = (x[0].view(x.shape[1], rows, -1, x.shape[3]).transpose(0, 1) for x in (query, key, value))
    if cache is not None:
        key, value = cache.update(key, value, _layer.get())
    out = attend(module, query, key, value, mask, scaling=scale, is_causal=False)[0]
    return out.reshape(1, -1, *out.shape[2:]).contiguous()


def _attend_shape(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


_library: Any = torch.library.Library("mdm", "DEF")  # type: ignore[no-untyped-call]
_library.define("attend(Tensor query, Tensor key, Tensor value, float scale) -> Tensor")
_library.impl("attend", _attend_in_context, "CompositeExplicitAutograd")
torch.library.register_fake("mdm::attend", _attend_shape, lib=_library)


def _attend_grouped(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention ``[G, N, H, Q, D]`` of as many queries over ``[G, H / share, T, D]``, and its ``[G, N, H, Q]`` weights.

    ``mask``: additive ``[G, 1, 1, T]`` or ``[G, 1, share * N * Q, T]``.
    """
    groups, count, heads, length, width = query.shape
    stored_heads = keys.shape[1]
    if heads == stored_heads:  # queries of one head already lie behind one another in memory
        folded = query.transpose(2, 3).reshape(groups, count * length, heads, width).transpose(1, 2)
        out, weight = attention_with_lse(folded, keys, values, mask, scale)
        out = out.transpose(1, 2).reshape(groups, count, length, heads, width).transpose(2, 3)
        return out, weight.view(groups, heads, count, length).transpose(1, 2)
    split = (groups, count, stored_heads, heads // stored_heads, length)
    folded = query.reshape(*split, width).permute(0, 2, 3, 1, 4, 5).reshape(groups, stored_heads, -1, width)
    out, weight = attention_with_lse(folded, keys, values, mask, scale)
    lines = (groups, stored_heads, heads // stored_heads, count, length)
    out = out.reshape(*lines, width).permute(0, 3, 1, 2, 4, 5).reshape(query.shape)
    return out, weight.reshape(lines).permute(0, 3, 1, 2, 4).reshape(query.shape[:-1])


def attention_with_lse(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention ``[G, H, Q, D]`` over ``keys`` ``[G, H, T, D]``, and the log-sum-exp ``[G, H, Q]`` of its scores.

    torch's public attention keeps the log-sum-exp to itself; its kernels for CPU and CUDA give it. What ``mask`` hides
    it hides by ``hiding``.
    """
    if query.device.type == "cpu":
        outputs = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, attn_mask=mask, scale=scale
        )
        return outputs[0], outputs[1]
    if query.device.type == "cuda" and query.shape[-1] % 8 == 0:
        if mask is not None:
            mask = aligned(mask).expand(-1, query.shape[1], query.shape[2], -1)
        outputs = torch.ops.aten._scaled_dot_product_efficient_attention(query, keys, values, mask, True, scale=scale)
        return outputs[0], outputs[1][..., : query.shape[2]]
    return plain_attention_with_lse(query, keys, values, mask, scale)


def aligned(mask: Tensor) -> Tensor:
    """``mask``, with lines that begin at multiples of 8 elements on a GPU, whose kernel loads it in aligned pieces."""
    if mask.device.type != "cuda" or not any(step % 8 for step in mask.stride()[:-1]):
        return mask
    return torch.nn.functional.pad(mask, (0, -mask.shape[-1] % 8))[..., : mask.shape[-1]]


def plain_attention_with_lse(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """``attention_with_lse`` in plain operations, for devices whose kernels do not give log-sum-exps."""
    scores = torch.matmul(query * scale, keys.transpose(-1, -2)).float()
    if mask is not None:
        scores = scores + mask
    weight = scores.logsumexp(-1)
    return torch.matmul((scores - weight[..., None]).exp().to(values.dtype), values), weight
