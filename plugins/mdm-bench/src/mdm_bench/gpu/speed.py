"""How fast a shape decodes: a block of every cell, and a whole decode where it takes few seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from mdm import registry
from mdm.models import Model, cuda_graphs
from mdm.protocols import StepEvent
from mdm.protocols.hooks import PAID

from mdm_bench.case import Case
from mdm_bench.decode import model_for
from mdm_bench.gpu.parts import Options, Part, in_a_line
from mdm_bench.shapes import SHAPES, weight_bytes

CANDIDATES = 8
BATCH = 16
ROUNDS = 3
ENOUGH, WHOLE = 2.0, 4.0
"""Seconds: no round is begun behind the first; a whole decode that would take longer than the second is left out."""
ON_A_CPU = 0.5
"""By how much these are shorter where the check is only tried."""
PROFILED = 8
"""Steps that are profiled, after as many that are not."""
WAYS: dict[str, dict[str, bool]] = {"graphs": {}, "compiled": {"compile": True}, "eager": {"graphs": False}}


@dataclass(frozen=True)
class Cell:
    """What is decoded, and how."""

    cache: str
    batch: int
    sampler: str
    way: str

    @property
    def name(self) -> str:
        return f"{self.cache} b{self.batch} {self.sampler} {self.way}"


def cells(shape: str, *, full: bool) -> list[Cell]:
    """The cells of a shape, the most important first; those that a short check leaves out are last."""
    window = SHAPES[shape].cache
    batched = [Cell(window, BATCH, "info-gain", way) for way in ("compiled", "graphs", "eager")]
    first = [
        *(Cell(window, 1, "info-gain", way) for way in ("graphs", "compiled", "eager")),
        *(Cell(window, 1, "confidence", way) for way in ("graphs", "compiled")),
        *(Cell(window, 1, sampler, way) for sampler in _own_samplers(shape) for way in ("graphs", "compiled", "eager")),
        *batched,
    ]
    others = [name for name in ("prefix", "none") if name != window and not SHAPES[shape].block_causal]
    rest = [Cell(name, 1, "info-gain", way) for name in (*others, *["none"] * (not others))
            for way in ("compiled", "graphs", "eager")]  # fmt: skip
    every = [
        Cell(name, batch, sampler, way)
        for batch in (1, BATCH)
        for name in (window, *others, *["none"] * ("none" not in others))
        for sampler in ("info-gain", "confidence")
        for way in ("compiled", "graphs", "eager")
        if batch == 1 or name == window
    ]
    chosen = [*first, *rest] if shape in ("llada-8b", "llada2-mini", "tiny") else [*first[:4], batched[0], *rest]
    return list(dict.fromkeys([*chosen, *every] if full else chosen))


def _own_samplers(shape: str) -> tuple[str, ...]:
    """Samplers that the checkpoints of a shape are published with."""
    return ("joint-threshold",) if SHAPES[shape].family == "llada2" else ()


@dataclass(frozen=True)
class Lengths:
    """Tokens of the prompt, of what is generated, and of a block."""

    prompt: int
    gen: int
    block: int

    def of_one_block(self, cache: str) -> tuple[int, int]:
        """Prompt and tokens to generate such that the first block costs what a block of a whole decode costs on
        average: as many masks are open, and a prefix cache's window is as long. Block-causal models have a grid."""
        gen = (self.gen + self.block) // 2
        gen = gen // self.block * self.block if cache == "block" else gen
        return self.prompt + self.gen - gen, gen


def lengths(shape: str) -> Lengths:
    return Lengths(16, 16, 4) if shape == "tiny" else Lengths(256, 256, 32)


class Enough(Exception):
    """Raised to leave a decode whose steps have been seen."""


class Steps:
    """``on_step``: counts steps and tokens, and leaves the decode after the last that is wanted.

    The host reads every step's event when the device has computed it, so the time between two is that of a step.
    """

    def __init__(self, wanted: int | None = None) -> None:
        self.wanted = wanted
        self.steps = self.tokens = 0
        self.last = 0.0

    def __call__(self, event: StepEvent) -> None:
        self.last = time.perf_counter()
        self.steps += 1
        self.tokens += sum(len(line["positions"]) for line in event.lines if line["kind"] in PAID)
        self.after()
        if self.wanted is not None and self.steps >= self.wanted:
            raise Enough

    def after(self) -> None:
        """Called after each step."""


def decode(model: Model, case: Case, steps: Steps) -> float:
    """Seconds from the call to the last step that ``steps`` wanted, or to the end."""
    _finish(model)
    start = time.perf_counter()
    try:
        case.decode(model, trace=False, on_step=steps)
        _finish(model)
        return time.perf_counter() - start
    except Enough:
        _finish(model)
        return steps.last - start


def _finish(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)


def part(options: Options, shape: str) -> Part:
    """A random model of ``shape``: the time of every cell, then a profile of each."""
    plan = cells(shape, full=options.full)
    timed = {cell.name: cell for cell in plan}
    profiled = {f"{cell.name} / device": cell for cell in plan} if options.on_gpu else {}
    models: list[Model] = []
    dtype = "bfloat16" if options.on_gpu else "float32"

    def prepare() -> dict[str, Any]:
        start = time.perf_counter()
        for cell in plan:
            registry.resolve("sampler", cell.sampler)
            registry.resolve("cache", cell.cache)
        case = _case(shape, Cell(SHAPES[shape].cache, 1, "confidence", "eager"))
        models.append(model_for(shape, SHAPES[shape], [case], device=options.device, dtype=dtype))
        _finish(models[0])
        made = time.perf_counter() - start
        return {"dtype": dtype, "weight_bytes": weight_bytes(SHAPES[shape], dtype), "seconds_to_make": made}

    def measure(name: str) -> dict[str, Any]:
        if name in timed:
            return _timed(models[0], shape, timed[name])
        return profile(models[0], _case(shape, profiled[name]))

    return Part([*timed, *profiled], measure, prepare, limit=75)


def _case(shape: str, cell: Cell) -> Case:
    sizes = lengths(shape)
    prompt, gen = sizes.of_one_block(cell.cache)
    return Case(
        cache=cell.cache, sampler=cell.sampler, candidates=CANDIDATES, prompt_length=prompt, gen_length=gen,
        block_length=sizes.block, batch=cell.batch, max_rows="auto", **WAYS[cell.way],
    )  # fmt: skip


def _timed(model: Model, shape: str, cell: Cell) -> dict[str, Any]:
    """Times and counts of a cell. The first decode of a process is reported apart: it compiles and captures."""
    case, sizes = _case(shape, cell), lengths(shape)
    case.check(model.spec, model.device.type)
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(model.device)
    counted = [cuda_graphs.counts(model)]
    first = decode(model, case, Steps(sizes.block))
    counted.append(cuda_graphs.counts(model))
    rounds: list[tuple[float, Steps]] = []
    begun, share = time.perf_counter(), 1.0 if on_gpu else ON_A_CPU
    while len(rounds) < ROUNDS and (not rounds or time.perf_counter() - begun < share * ENOUGH):
        steps = Steps(sizes.block)
        rounds.append((decode(model, case, steps), steps))
    counted.append(cuda_graphs.counts(model))
    taken = median(spent for spent, _ in rounds)
    steps = rounds[0][1]
    found = {
        "tokens_per_second": steps.tokens / taken,
        "ms_per_step": 1e3 * taken / steps.steps,
        "steps": steps.steps,
        "tokens": steps.tokens,
        "rounds": len(rounds),
        "first_seconds": first,
        "peak_bytes": torch.cuda.max_memory_allocated(model.device) if on_gpu else None,
        "captures": counted[1].captures - counted[0].captures,
        "captures_later": counted[2].captures - counted[1].captures,
        "replays": counted[2].replays - counted[0].replays,
        "graph_bytes": counted[2].bytes,
    }
    blocks = sizes.gen // sizes.block
    if taken * blocks < share * WHOLE:
        steps = Steps()
        whole = decode(model, replace(case, prompt_length=sizes.prompt, gen_length=sizes.gen), steps)
        found |= {"whole_seconds": whole, "whole_tokens_per_second": steps.tokens / whole}
    return found


class _Profiled(Steps):
    """Profiles the last steps of those that are wanted."""

    def __init__(self) -> None:
        super().__init__(2 * PROFILED)
        seen = torch.profiler.ProfilerActivity
        # Launches belong to both kinds, and what torch does on the host would only slow it down.
        self.profiler: Any = torch.profiler.profile(activities=[seen.CUDA if torch.cuda.is_available() else seen.CPU])
        self.on = False

    def after(self) -> None:
        if self.steps == PROFILED:
            self.profiler.start()
            self.on = True
        elif self.steps == self.wanted:
            self.stop()

    def stop(self) -> None:
        if self.on:
            self.on = False
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.profiler.stop()


def profile(model: Model, case: Case) -> dict[str, Any]:
    """A step's time on the device, its kernels, what the host launches, and copies between host and device."""
    decode(model, case, Steps(PROFILED))  # captures what is to be replayed
    steps = _Profiled()
    try:
        decode(model, case, steps)
    finally:
        steps.stop()
    try:
        events = [
            (event.name, str(event.device_type), event.time_range.start, event.time_range.end)
            for event in steps.profiler.events()
            if not getattr(event, "is_user_annotation", False)
        ]
    except Exception as error:
        return {"device_ms": None, "why": in_a_line(error)}
    return in_a_step(events, PROFILED)


def in_a_step(events: list[tuple[str, str, float, float]], steps: int) -> dict[str, Any]:
    """What ``steps`` steps did, each: events are a name, a type of device, and two times in microseconds."""
    device = sorted((start, end, name) for name, kind, start, end in events if kind.endswith("CUDA"))
    if not device:
        return {"device_ms": None, "why": "the profiler saw no kernel"}
    busy, until = 0.0, device[0][0]
    for start, end, _ in device:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    host = [name for name, kind, _, _ in events if kind.endswith("CPU")]
    copies = [name for _, _, name in device if name.startswith("Memcpy")]
    return {
        "device_ms": busy / 1e3 / steps,
        "kernels": sum(not name.startswith(("Memcpy", "Memset")) for _, _, name in device) / steps,
        "launches": sum("LaunchKernel" in name or "GraphLaunch" in name for name in host) / steps,
        "copies_to_host": sum("DtoH" in name for name in copies) / steps,
        "copies_to_device": sum("HtoD" in name for name in copies) / steps,
    }
