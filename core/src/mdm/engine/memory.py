"""How many rows a batch and a forward may have: what the memory holds, and no more than pays.

Estimates, on the safe side. Nothing decoded depends on them: rows do not depend on their neighbours, and a forward in
parts is the same forward. Where an estimate was too bold on a GPU, the rows are halved until they plan_batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt
from typing import TYPE_CHECKING, Any

import torch
from mdm.errors import MdmError
from mdm.models import placement
from mdm.models.placement import free_bytes as free_bytes
from mdm.protocols.settings import Size
from mdm.scoring.readout import LOGIT_BYTES, chunk_elements

if TYPE_CHECKING:
    from mdm.models.model import Model


USABLE_FRACTION = 0.8
"""Of the free memory, how much may be used: estimates are rough, and allocators leave gaps."""

TOKENS_TO_SATURATE = {"cpu": 1024}
"""Row-tokens from which more rows in a forward make no token cheaper, by kind of device."""

PAYS_ELSEWHERE = 16384
"""The same for accelerators, where the weights moved are shared by all rows of a forward."""


@dataclass(frozen=True)
class Sizes:
    """Rows decoded together, canvases in one model call (None: no limit), and the free bytes they were chosen for."""

    batch_size: int
    max_rows: int | None
    free: int

    @property
    def splits_lookahead(self) -> bool:
        """Whether a forward may have so few rows that a lookahead will feel it."""
        return self.max_rows is not None and self.max_rows < 64 * self.batch_size

    def halved(self) -> Sizes:
        """Half the batch."""
        return replace(self, batch_size=self.batch_size // 2)

    def __str__(self) -> str:
        rows = "" if self.max_rows is None else f", at most {self.max_rows:,} rows in a forward"
        return f"batch size {self.batch_size:,}{rows} ({self.free / 1e9:.1f} GB free)"


def plan_batch(
    model: Model,
    length: int,
    count: int,
    *,
    kv: bool,
    maps: bool = False,
    cfg_branches: int,
    batch_size: Size | None,
    max_rows: Size | None,
    features: bool = False,
) -> Sizes:
    """The sizes for ``count`` canvases of at most ``length`` tokens; those that are given stay as they are.

    Args:
        kv: whether keys and values of every row are kept.
        maps: whether the cache mode reads attention.
        cfg_branches: canvases a row takes in a forward (2 with guidance).
        features: whether what attention and MLP gave is kept beside them (a cache mode inside the layers).
    """
    free = free_bytes(model.device)
    usable = int(free * USABLE_FRACTION) - LOGIT_BYTES * chunk_elements(model.device, free)
    kept = kv * kept_bytes(model, length, features=features) * cfg_branches
    moving = forward_bytes(model, length) * cfg_branches + maps * map_bytes(model, length, cfg_branches)
    batch = count if batch_size is None or batch_size == "auto" else min(batch_size, count)
    if batch_size == "auto":
        # At most half for what is kept: a lookahead's candidates keep nothing, but go through the model.
        holds = usable // 2 // kept if kept else usable // moving
        pays = -(-saturating(model) // length)
        batch = max(1, min(count, holds, pays))
    rows = max(1, (usable - kept * batch) // moving) if max_rows == "auto" else max_rows
    return Sizes(batch, rows, free)


POSITION_BYTES = 256
"""What a position of a canvas takes beside the model: in the state, in lists, and in the trace."""


def check_fits(
    model: Model,
    length: int,
    count: int,
    *,
    kv: bool,
    features: bool = False,
    maps: bool = False,
    batch_size: Size | None = None,
    step_bytes: int = 0,
    sampler: str = "",
) -> None:
    """Refuse canvases that the memory cannot hold, before anything of their size is made.

    Counted is what is needed in any case, so that what is let through may be too much yet.
    ``kv``, ``features`` and ``maps``, kept of every row and made in a forward, are ``plan_batch``'s.

    Args:
        length: of the longest of ``count`` canvases, in tokens.
        step_bytes: what a step of a row takes in the sampler, which ``sampler`` names with its options.

    Raises:
        MdmError: one line with the option to give less of, and how much would fit.
    """
    free, width = placement.free_bytes(model.device), _Shape.of(model).width
    kept = POSITION_BYTES + kv * kept_bytes(model, 1, features=features)
    most = free // (kept + 4 * width * model.dtype.itemsize)
    if model.spec.attention == "block-causal":  # whose masks are made for every pair of positions
        most = min(most, isqrt(free // model.dtype.itemsize))
    if maps:
        most = min(most, isqrt(free // map_bytes(model, 1)))
    shown = f"and the {free / 1e9:.1f} GB that are free hold"
    if length > most:
        raise MdmError(
            f"gen_length or prompt too long: a canvas has {length:,} tokens, in whole blocks of block_length, {shown} "
            f"one of at most {most:,}"
        )
    batch = min(batch_size, count) if isinstance(batch_size, int) else 1 if batch_size == "auto" else count
    if batch * length * kept > free:
        raise MdmError(
            f"batch_size too large: {batch:,} canvases of {length:,} tokens are decoded together, {shown} at most "
            f"{free // (length * kept):,}"
        )
    if batch * step_bytes > free:
        raise MdmError(
            f"{sampler} takes {step_bytes / 1e9:,.1f} GB in a step of a prompt, and {free / 1e9:.1f} GB are "
            f"free for {batch:,}: give it smaller options, or give a smaller block_length or batch_size"
        )


def row_tokens(model: Model) -> int:
    """Tokens of canvases that may be decoded at one time, their keys and values kept: half of the free memory."""
    each = POSITION_BYTES + (2 * kept_bytes(model, 1) if model.spec.has_kv else 0)
    return max(1, int(placement.free_bytes(model.device) * USABLE_FRACTION) // 2 // each)


def saturating(model: Model) -> int:
    """Row-tokens of a forward from which more of them make no token cheaper."""
    return TOKENS_TO_SATURATE.get(model.device.type, PAYS_ELSEWHERE)


def check_many(what: str, count: int, each: int) -> None:
    """Refuse so many things of ``each`` bytes that the host's memory cannot hold them; ``what`` names the option.

    Raises:
        MdmError: one line with the number and how many would fit.
    """
    free = placement.free_bytes(torch.device("cpu"))
    if count > free // each:
        raise MdmError(f"{what}: {count:,} are too many: the {free / 1e9:.1f} GB that are free hold {free // each:,}")


def kept_bytes(model: Model, length: int, *, features: bool = False) -> int:
    """Keys and values of one canvas in all layers, and its ``features``."""
    shape = _Shape.of(model)
    return 2 * shape.layers * (shape.kv_width + features * shape.width) * length * model.dtype.itemsize


def forward_bytes(model: Model, length: int) -> int:
    """What one canvas takes while a layer works on all of it: the states, the layer's projections, and its mask."""
    shape = _Shape.of(model)
    token = 6 * shape.width + 2 * (shape.heads_width + 2 * shape.kv_width) + 3 * shape.mlp
    return (token + length) * length * model.dtype.itemsize


def map_bytes(model: Model, length: int, branches: int = 1) -> int:
    """What a layer's attention of one canvas takes where it is read: scores, weights and their copies of every head,
    and two matrices of what is folded of the layers (the rollout of d2Cache)."""
    return (3 * branches * _Shape.of(model).heads + 2) * 4 * length**2


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or this machine, has no memory left."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error) for words in ("can't allocate memory", "MPS backend out of memory")
    )


@dataclass(frozen=True)
class _Shape:
    """What a forward's memory follows from; of a network that does not say, guesses from its vocabulary."""

    layers: int
    width: int
    mlp: int
    heads: int
    heads_width: int
    kv_width: int

    @staticmethod
    def of(model: Model) -> _Shape:
        config: Any = getattr(model.body, "config", None)

        def say(name: str, otherwise: int) -> int:
            return int(getattr(config, name, None) or otherwise)

        width = say("hidden_size", 4096)
        heads = say("num_attention_heads", 1)
        head = say("head_dim", width // heads)
        return _Shape(
            layers=say("num_hidden_layers", 32),
            # Whose head is none makes logits in place of states (mdm-dllm).
            width=model.spec.vocab_size if isinstance(model.lm_head, torch.nn.Identity) else width,
            mlp=max(
                say("intermediate_size", 4 * width),
                # A token's states are copied for each of its experts.
                say("num_experts_per_tok", 0) * (say("moe_intermediate_size", 0) + width),
            ),
            heads=heads,
            heads_width=heads * head,
            kv_width=say("num_key_value_heads", heads) * head,
        )
