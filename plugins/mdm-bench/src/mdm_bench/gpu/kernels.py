"""The kernels by themselves: their numbers against float64, and the speed of the pass over a vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mdm.models.attention import attention_with_lse, hiding
from mdm.protocols import Draws
from mdm.scoring.tile_pass import tile_stats
from mdm.scoring.tiles import Tiles, TokenDraw, merge_tiles
from torch import Tensor

from mdm_bench.case import seconds
from mdm_bench.decode import bandwidth
from mdm_bench.gpu.parts import Options, Part

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
VOCABULARIES = (126464, 151936, 50257, 2048, 259)
ROWS = (32, 256, 1024, 4096)
WIDTH = 126464
"""Of the timed pass."""
DRAWS = 2
TEMPERATURE = 0.8
ATTENTION = ((1, 32, 8, 256, 512, 128), (4, 8, 2, 64, 300, 64), (2, 4, 4, 33, 77, 128))
"""Rows, heads, stored heads, queries, keys and the width of a head."""
TOLERANCE = {"bfloat16": 2e-2, "float16": 3e-3, "float32": 1e-4}
"""Of attention, whose products round in the type of its inputs. The log-sum-exp is float32 whatever they are."""
PASS_TOLERANCE = 2e-5
"""Of the pass, which adds in float32 whatever it reads."""
DRAW_TOLERANCE = 1e-3
"""Of the value of a drawn token."""
LOOPS = 20
AWAY = 1 << 28
"""Bytes of logits that are read in turn, so that none is still in the device's cache."""


def part(options: Options) -> Part:
    """Correctness first, type by type, then the speed of the pass."""
    device = options.device
    vocabularies = VOCABULARIES if options.on_gpu else VOCABULARIES[2:]
    cells: dict[str, Callable[[], dict[str, Any]]] = {}
    for name in DTYPES:
        cells[f"pass {name}"] = lambda name=name: _pass(device, name, vocabularies, drawn=False)  # type: ignore[misc]
        cells[f"pass {name} drawn"] = lambda name=name: _pass(device, name, vocabularies, drawn=True)  # type: ignore[misc]
        cells[f"attention {name}"] = lambda name=name: _attention(device, name)  # type: ignore[misc]
    for rows in ROWS if options.on_gpu else (2,):  # on a CPU the pass is only tried
        cells[f"time {rows} rows"] = lambda rows=rows: _time(device, rows, drawn=False)  # type: ignore[misc]
        cells[f"time {rows} rows drawn"] = lambda rows=rows: _time(device, rows, drawn=True)  # type: ignore[misc]
    return Part(list(cells), lambda cell: cells[cell](), limit=40)


def _logits(device: str, rows: int, width: int, dtype: torch.dtype) -> Tensor:
    random = torch.Generator().manual_seed(width)
    x = 3 * torch.randn(rows, width, generator=random)
    x[:, width // 3] = -torch.inf
    return x.to(device, dtype)


def _draw(device: str, rows: int) -> TokenDraw:
    row = torch.arange(rows)
    keys = Draws(7, row, row).token_keys(row[:, None], torch.arange(DRAWS))
    return TokenDraw(keys.to(device), TEMPERATURE, 5)


def _pass(device: str, name: str, vocabularies: Sequence[int], *, drawn: bool) -> dict[str, Any]:
    """The largest relative error of the pass's sums over all vocabularies, and how many tokens are not the right ones.

    Drawn tokens are held against those of the pass in torch on the CPU. Noise differs in the last bits of two
    logarithms, so a drawn token is wrong only where its value is.
    """
    worst, wrong, rows = 0.0, 0, 6
    for width in vocabularies:
        x = _logits(device, rows, width, DTYPES[name])
        draw = _draw(device, rows) if drawn else None
        found = _on_host(merge_tiles(tile_stats(x, 0, draw)))
        host = x.cpu()
        top, token = host.double().sort(dim=-1, descending=True, stable=True)
        z = top - top[:, :1]
        e = z.exp()
        e[:, 0] = 0.0
        sums = {
            "tail_sum": (found.tail_sum[:, 0], e.sum(-1)),
            "tail_energy": (found.tail_energy[:, 0], (e * z).nansum(-1)),
            "largest": (found.top_logits[:, 0, 0], top[:, 0]),
            "second": (found.top_logits[:, 0, 1], top[:, 1]),
        }
        worst = max(worst, *(_relative(ours, exact) for ours, exact in sums.values()))
        wrong += int((found.top_tokens[:, 0, 0] != token[:, 0]).sum())
        if drawn:
            assert found.draw_value is not None
            expected = merge_tiles(tile_stats(host.float(), 0, _draw("cpu", rows)))
            assert expected.draw_value is not None
            wrong += int(((found.draw_value - expected.draw_value).abs() > DRAW_TOLERANCE).sum())
    return {"relative_error": worst, "wrong_tokens": wrong, "right": worst < PASS_TOLERANCE and not wrong}


def _on_host(tiles: Tiles) -> Tiles:
    columns: list[Any] = [None if column is None else column.cpu() for column in tiles]
    return Tiles(*columns)


def _relative(found: Tensor, exact: Tensor) -> float:
    return float(((found.double() - exact).abs() / exact.double().abs().clamp(min=1e-6)).max())


def _attention(device: str, name: str) -> dict[str, Any]:
    """Errors of attention and of its log-sum-exp, with and without a mask.

    Also the largest log-sum-exp of queries that see nothing, in parts of what hides (0.5 and more is nothing).
    """
    out_error, weight_error, unseen = 0.0, 0.0, torch.inf
    for rows, heads, stored, queries, keys, width in ATTENTION:
        random = torch.Generator().manual_seed(keys)
        q, k, v = (
            torch.randn(rows, stored, n, width, generator=random).to(device, DTYPES[name])
            for n in (queries * heads // stored, keys, keys)
        )
        hidden = torch.rand(rows, 1, 1, keys, generator=random) < 0.3
        lowest = hiding(DTYPES[name])
        mask = torch.zeros(hidden.shape).masked_fill(hidden, lowest).to(device, DTYPES[name])
        blind, nothing = attention_with_lse(q, k, v, torch.full_like(mask, lowest), width**-0.5)
        unseen = min(unseen, float(nothing.max()) / lowest if blind.isfinite().all() else 0.0)
        for given in (None, mask):
            out, weight = attention_with_lse(q, k, v, given, width**-0.5)
            host_mask = None if given is None else given.double().cpu()
            exact, exact_weight = _exact(q.double().cpu(), k.double().cpu(), v.double().cpu(), host_mask, width**-0.5)
            out_error = max(out_error, float((out.double().cpu() - exact).abs().max()))
            weight_error = max(weight_error, float((weight.double().cpu() - exact_weight).abs().max()))
    limit = TOLERANCE[name]
    right = out_error < limit and weight_error < limit and unseen > 0.5
    return {"out_error": out_error, "lse_error": weight_error, "unseen": unseen, "right": right}


def _exact(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    scores = q @ k.transpose(-1, -2) * scale
    scores = scores if mask is None else scores + mask
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def _time(device: str, rows: int, *, drawn: bool) -> dict[str, Any]:
    """Milliseconds of a pass, called one after the other and replayed in a graph, and its share of the copy's speed."""
    size = 2 * rows * WIDTH
    turns = max(1, min(LOOPS, AWAY // size))
    logits = [_logits(device, 1, WIDTH, torch.bfloat16).repeat(rows, 1) for _ in range(turns)]
    draw = _draw(device, rows) if drawn else None

    def work() -> None:
        for i in range(LOOPS if device.startswith("cuda") else 1):
            tile_stats(logits[i % turns], 0, draw)

    count = LOOPS if device.startswith("cuda") else 1
    place = torch.device(device)
    work()
    called = min(seconds(work, place) for _ in range(3)) / count
    found: dict[str, Any] = {"ms": 1e3 * called, "device_ms": None, "share_of_copy": size / called / bandwidth(device)}
    if place.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        replayed = min(seconds(graph.replay, place) for _ in range(3)) / count
        found |= {"device_ms": 1e3 * replayed, "share_of_copy": size / replayed / bandwidth(device)}
    return found
