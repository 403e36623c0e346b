"""Muon (Jordan et al. 2024) in float32, for CPUs, where bfloat16 products are slower than those of float32."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.775, 2.0315)
ROUNDS = 5


class Float32Muon(torch.optim.Optimizer):
    """The update of ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"``; matrices of one shape go together."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for shape, same in groupby(sorted(group["params"], key=_shape), key=_shape):
                matrices = list(same)
                updates = []
                for matrix in matrices:
                    mean = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(matrix))
                    mean.lerp_(matrix.grad, 1 - momentum)
                    updates.append(matrix.grad.lerp(mean, momentum))
                for matrix, update in zip(matrices, orthogonal(torch.stack(updates)), strict=True):
                    matrix.mul_(1 - rate * group["weight_decay"])
                    matrix.add_(update, alpha=-0.2 * rate * max(shape) ** 0.5)


def _shape(matrix: Tensor) -> tuple[int, ...]:
    return tuple(matrix.shape)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices ``[N, R, C]`` with their singular values moved close to 1, by Newton and Schulz's iteration."""
    a, b, c = COEFFICIENTS
    upright = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if upright else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if upright else x
