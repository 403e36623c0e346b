"""The network as its authors publish it; this stands for code that needs an environment of its own."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.functional import linear, silu


def logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """Logits ``[L, V]`` of one canvas ``[L]``."""
    config, w = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    size, length = config["dim"] // config["heads"], len(ids)
    at = torch.arange(length)
    angle = at[:, None] / config["theta"] ** (torch.arange(0, size, 2) / size)
    turn = torch.cat([angle, angle], -1)
    block = at // config["block"]
    sees = block[None, :] <= block[:, None]

    def norm(x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config["eps"]) * w[f"{name}.weight"]

    def heads(x, name, rotated):
        x = linear(x, w[f"{name}.weight"]).view(length, -1, size).transpose(0, 1)
        half = torch.cat([-x[..., size // 2 :], x[..., : size // 2]], -1)
        return x * turn.cos() + half * turn.sin() if rotated else x

    x = w["embed.weight"][ids]
    for n in range(config["depth"]):
        name, y = f"blocks.{n}", norm(x, f"blocks.{n}.norm_a")
        q, k, v = (heads(y, f"{name}.w{part}", part != "v") for part in "qkv")
        k, v = (t.repeat_interleave(config["heads"] // config["kv_heads"], 0) for t in (k, v))
        weight = (q @ k.transpose(1, 2) / size**0.5).masked_fill(~sees, -torch.inf).softmax(-1)
        x = x + linear((weight @ v).transpose(0, 1).flatten(1), w[f"{name}.wo.weight"])
        y = norm(x, f"{name}.norm_m")
        y = silu(linear(y, w[f"{name}.gate.weight"])) * linear(y, w[f"{name}.up.weight"])
        x = x + linear(y, w[f"{name}.down.weight"])
    return linear(norm(x, "norm"), w["head.weight"])
