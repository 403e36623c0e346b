"""The speed of a model's shape: tokens a second, and the share of what the memory's bandwidth would allow.

Every forward has to read all weights and the cached keys and values once. The roofline is the speed at which
that traffic alone would run: bytes of all forwards of the decode ÷ the memory's bandwidth. It counts no arithmetic,
so where many row-tokens share a forward the device's matrix units are the nearer limit; ``tflops`` is then the figure
to hold against them.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mdm.engine.memory import forward_bytes, free_bytes, kept_bytes
from mdm.errors import MdmError
from mdm.models import Model
from mdm.models.cuda_graphs import GraphCounts, counts as graph_counts
from mdm_testing.counters import counting

from mdm_bench.case import Case, seconds
from mdm_bench.shapes import Shape, random_model, weight_bytes

COPIED = 1 << 28
"""Bytes of the copy that bandwidth is measured by: more than any processor's cache."""


def bandwidth(device: str, times: int = 5) -> float:
    """Memory bandwidth in bytes a second, read and written: the best of several copies."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return 2 * COPIED / min(seconds(lambda: target.copy_(source), source.device) for _ in range(times))


def model_for(name: str, shape: Shape, cases: Sequence[Case], *, device: str, dtype: str) -> Model:
    """A random model of ``shape``, called ``name``, that all ``cases`` can run on.

    Raises:
        MdmError: a case is not for such a model, or the weights, and one canvas beside them, do not fit the memory.
    """
    for case in cases:
        case.check(shape.spec, torch.device(device).type)
    weights, free = weight_bytes(shape, dtype), free_bytes(torch.device(device))
    if weights > free:
        raise MdmError(
            f"{name} in {dtype} has {weights / 1e9:.1f} GB of weights, and {device} has {free / 1e9:.1f} GB free: "
            "choose a smaller or narrower model, or another device"
        )
    model = random_model(shape, device=device, dtype=dtype)
    most, free = max(_least(model, case) for case in cases), free_bytes(model.device)
    if most > free:
        raise MdmError(
            f"beside {name}'s weights the batch takes {most / 1e9:.1f} GB, and {device} has {free / 1e9:.1f} GB free: "
            "choose a smaller --batch-size or shorter lengths"
        )
    return model


def _least(model: Model, case: Case) -> int:
    """Bytes without which a case cannot run: its batch's keys and values, and a forward of one canvas."""
    kept = kept_bytes(model, case.length) * case.batch if case.keeps else 0
    return kept + forward_bytes(model, case.length)


def measure(model: Model, case: Case, speed: float, **settings: Any) -> dict[str, Any]:
    """Times, counts and the roofline of ``case`` at a memory bandwidth of ``speed`` (bytes a second).

    ``settings`` go to ``mdm.decode``. The decode before the one that is timed warms up, and is counted.
    """
    device = model.device
    on_gpu = device.type == "cuda"
    before = graph_counts(model)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    with counting(model, operations=not on_gpu) as counts:
        results = case.decode(model, **settings)
    weights = _weights(model)
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else weights["all"] + counts.peak_bytes
    if case.compile or (on_gpu and case.graphs):  # what is counted is neither compiled nor captured
        case.decode(model, trace=False, **settings)
    elapsed = seconds(lambda: case.decode(model, trace=False, **settings), device)
    tokens = sum(len(result.tokens) for result in results)
    words = sum(token not in model.spec.eos_ids for result in results for token in result.tokens)
    forwards = sum(result.forwards for result in results)
    kept = kept_bytes(model, case.length) * case.batch if case.keeps else 0
    used = _experts_used(model, counts.positions / counts.model_calls)
    body = weights["body"] + weights["experts"] * used
    moved = counts.model_calls * (body + weights["head"] + kept)
    computed = weights["body"] + weights["experts"] * _experts_used(model, 1)
    flops = 2 * (computed * counts.positions + weights["head"] * counts.head_rows) / model.dtype.itemsize
    return {
        "cache": case.cache,
        "sampler": case.sampler,
        "candidates": case.candidates,
        "batch_size": case.batch,
        "prompt_length": case.prompt_length,
        "gen_length": case.gen_length,
        "block_length": case.block_length,
        "tokens_per_step": case.tokens_per_step,
        "compile": case.compile,
        "graphs": case.graphs,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device_name(device),
        "seconds": elapsed,
        "tokens_per_second": tokens / elapsed,
        "tokens_per_forward": tokens / forwards,
        "tokens_per_forward_without_eos": words / forwards,
        "forwards": counts.model_calls,
        "rows": counts.rows,
        "row_tokens": counts.positions,
        "head_rows": counts.head_rows,
        "peak_bytes": peak,
        **graphs_since(model, before),
        "weight_bytes": weights["body"] + weights["experts"] + weights["head"],
        "kept_bytes": kept,
        "bandwidth": speed,
        "roofline_tokens_per_second": tokens * speed / moved,
        "share_of_roofline": moved / speed / elapsed,
        "tflops": flops / elapsed / 1e12,
    }


def graphs_since(model: Model, before: GraphCounts) -> dict[str, int]:
    """CUDA graphs captured and replayed since the counts ``before``, and the bytes that all of them hold."""
    now = graph_counts(model)
    return {
        "captures": now.captures - before.captures, "replays": now.replays - before.replays, "graph_bytes": now.bytes,
    }  # fmt: skip


def device_name(device: torch.device) -> str:
    """The device's product name; for a CPU also the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else device.type


def _processor() -> str:
    """The processor's product name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _weights(model: Model) -> dict[str, int]:
    """Bytes of weights: those that a forward reads (of the embeddings only a few rows), the experts', of which it reads
    those that tokens choose, the head's, and all."""
    body, head = ({p.data_ptr(): p.nbytes for p in part.parameters()} for part in (model.body, model.lm_head))
    embeddings = sum(p.nbytes for p in model.body.get_input_embeddings().parameters())  # type: ignore[operator]
    experts = sum(p.nbytes for name, p in model.body.named_parameters() if ".experts." in name)
    return {
        "body": sum(body.values()) - embeddings - experts, "experts": experts, "head": sum(head.values()),
        "all": sum((body | head).values()),
    }  # fmt: skip


def _experts_used(model: Model, tokens: float) -> float:
    """The share of the experts that some of ``tokens`` tokens choose, if they choose evenly."""
    config: Any = model.body.config
    number = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    return 1 - (1 - config.num_experts_per_tok / number) ** tokens if number else 1.0
