"""Leave-one-out scores of committed positions, in the forward that scores the masks.

Behind each canvas lie shadows: for every scored position a mask with its position id. What is on the canvas sees the
canvas alone; a shadow sees all of it but its own position, and all shadows of the row. So the shadow of a committed
position says what would be put there had it not been. From WINO (arXiv:2507.18578).
"""

from __future__ import annotations

import torch
from mdm.models.attention import hiding
from mdm.models.model import Model
from torch import Tensor


def hidden_left_out(
    model: Model, tokens: Tensor, positions: Tensor, visible: Tensor | None, score: Tensor, shadows: int
) -> Tensor:
    """Hidden states ``[R, L, D]`` of canvases, those of committed scored positions from their shadows.

    Args:
        tokens: int64 ``[R, L]``, at ``positions``.
        positions: int64 ``[R, L]``.
        visible: bool ``[R, 1 or L, L]``, which positions each sees; None: all.
        score: bool ``[R, L]``, the scored positions.
        shadows: the most scored positions of a row.
    """
    rows, length = tokens.shape
    # A row with fewer is padded with shadows of other positions, which nobody sees.
    at = score.to(torch.int8).sort(dim=1, descending=True, stable=True).indices[:, :shadows]
    real = score.gather(1, at)
    seen = torch.zeros(rows, length + shadows, length + shadows, dtype=torch.bool, device=tokens.device)
    canvas = torch.ones_like(score)[:, None] if visible is None else visible
    seen[:, :length, :length] = canvas
    own = at[..., None] == torch.arange(length, device=at.device)
    of_shadow = canvas if canvas.shape[1] == 1 else canvas.gather(1, at[..., None].expand(-1, -1, length))
    seen[:, length:, :length] = of_shadow & ~own
    seen[:, length:, length:] = real[:, None] | torch.eye(shadows, dtype=torch.bool, device=at.device)
    mask = torch.zeros(seen.shape, dtype=model.dtype, device=seen.device).masked_fill_(~seen, hiding(model.dtype))
    hidden = model.hidden(
        torch.cat([tokens, torch.full_like(at, model.spec.mask_id)], 1),
        torch.cat([positions, positions.gather(1, at)], 1),
        mask=mask[:, None],
    )
    committed = real & (tokens.gather(1, at) != model.spec.mask_id)
    behind = torch.arange(length, length + shadows, device=at.device)
    source = torch.arange(length, device=at.device).repeat(rows, 1).scatter(1, at, torch.where(committed, behind, at))
    return hidden.gather(1, source[..., None].expand(-1, -1, hidden.shape[-1]))
