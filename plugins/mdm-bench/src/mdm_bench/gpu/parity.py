"""Whether a decode on the device commits the CPU's tokens in the CPU's order, in float32."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from mdm import api, registry
from mdm.errors import MdmError
from mdm.models import Model
from mdm.models.cuda_graphs import counts
from mdm.protocols.settings import DEFAULT_SAMPLER
from mdm_testing.probe import essence
from mdm_testing.toy import toy_model

from mdm_bench.gpu.parts import Options, Part, in_a_line

PROMPTS = (("78,82,55,51:", 16), ("[MASK]1343412[MASK][MASK]2[MASK][MASK][MASK][MASK][MASK]", 0), ("82,59:", 9))
"""Texts as the embedded model was trained on, and the tokens to generate behind them; for other models they are
bytes. Guidance takes no infill."""
CANDIDATES = 4
ON_A_CPU = 2
"""Samplers that are compared where there is nothing to compare."""
BLOCK = 8
MODES: dict[str, dict[str, Any]] = {
    "eager": {"graphs": False},
    "graphs": {},
    "temperature": {"temperature": 0.8},
    "top-p": {"temperature": 0.8, "top_p": 0.9, "score_after": "tempered"},
    "guidance": {"guidance": 0.7},
    "compile": {"compile": True},
}
"""What is decoded; only ``eager`` goes without graphs. Compiling takes longest, so it is a cell of its own, behind the
others."""
THOROUGH = 2
"""Samplers that are decoded in every mode with every cache."""
FEW = ("graphs", "temperature")
"""Modes of the others, unless the check is a full one."""

Decoded = list[list[tuple[Any, ...]]]
"""Each row's steps, as ``essence`` gives them."""


def part(options: Options) -> Part:
    """A cell for a sampler, a cache, and the modes that are compiled or not.

    Unless it is a full check, compiling and the rarer modes are for the first samplers alone: what they try does not
    depend on the sampler.
    """
    samplers = _samplers(every=options.full)
    if not (options.on_gpu or options.full):
        samplers = samplers[:ON_A_CPU]  # which only tries the check
    thorough = samplers if options.full else samplers[:THOROUGH]
    called = [mode for mode in MODES if mode != "compile"]
    cells: dict[str, tuple[str, str, Sequence[str]]] = {}
    for sampler in samplers:
        for name in registry.names("cache"):
            cells[f"{sampler} {name}"] = sampler, name, called if sampler in thorough else FEW
    for sampler in thorough:
        for name in registry.names("cache"):
            cells[f"{sampler} {name} compile"] = sampler, name, ["compile"]

    def measure(cell: str) -> dict[str, Any]:
        return _compared(options.device, *cells[cell])

    return Part(list(cells), measure, lambda: _exact(options), limit=60)


def _samplers(*, every: bool) -> list[str]:
    """One sampler of each kind, or all; the default and the most confident are first."""
    names = registry.names("sampler")
    names.sort(key=lambda name: (name != DEFAULT_SAMPLER, name != "confidence"))
    kinds: dict[tuple[Any, ...], str] = {}
    for name in names:
        kinds.setdefault((name,) if every else _kind(name), name)
    return list(kinds.values())


def _kind(name: str) -> tuple[Any, ...]:
    """What decides how the engine runs a sampler."""
    plugin = registry.resolve("sampler", name)
    looks_ahead = "candidates" in plugin.Options.model_fields
    forks = "beam_size" in plugin.Options.model_fields
    return looks_ahead, forks, plugin.works_on, plugin.sees, plugin.reads, plugin.pace, plugin.keeps_logits


def _exact(options: Options) -> dict[str, Any]:
    torch.set_num_threads(1)  # the model is too small for more, and the machine may be busy
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    return {"models": {attention: _models(attention, options.device)[0].name for attention in ("full", "block-causal")}}


@cache
def _models(attention: str, device: str) -> tuple[Model, Model]:
    """A model on the CPU, and the same one on ``device``: the embedded one where it suits, else one of random
    weights."""
    if attention == "full":
        try:
            there, here = (api.load_model("tiny", device=d, dtype="float32") for d in (device, "cpu"))
            return here, there
        except MdmError:
            pass
    here = toy_model("block-causal" if attention == "block-causal" else "full")
    body, head = copy.deepcopy(here.body).to(device), copy.deepcopy(here.lm_head).to(device)
    return here, Model(here.spec, body, head, here.tokenizer, name=here.name)


def _compared(device: str, sampler: str, name: str, modes: Sequence[str]) -> dict[str, Any]:
    """For each mode "same", where it first differs, or why it could not be decoded on the device; and how many forwards
    were replays: none are where no graph could be captured, and decodes go on without."""
    attention = registry.resolve("cache", name).attention or "full"
    there = _models(attention, device)[1]
    found: dict[str, Any] = {"same": [], "differs": {}, "failed": {}, "replays": 0}
    before = counts(there).replays
    for mode in modes:
        settings = MODES[mode]
        try:
            expected = _expected(attention, device, sampler, name, **_without_ways(settings))
        except MdmError as error:  # what the family refuses
            return {"refused": in_a_line(error)}
        try:
            decoded = _decoded(there, sampler, name, settings)
        except Exception as error:
            found["failed"][mode] = in_a_line(error)
            if there.device.type == "cuda":
                torch.cuda.synchronize()  # raises where the device cannot go on
            continue
        at = first_difference(expected, decoded)
        if at is None:
            found["same"].append(mode)
        else:
            found["differs"][mode] = at
    found["replays"] = counts(there).replays - before
    return found


def _without_ways(settings: dict[str, Any]) -> dict[str, Any]:
    """What decides the tokens."""
    return {name: value for name, value in settings.items() if name not in ("graphs", "compile")}


@cache
def _expected(attention: str, device: str, sampler: str, name: str, **settings: Any) -> Decoded:
    return _decoded(_models(attention, device)[0], sampler, name, settings | {"graphs": False})


def _decoded(model: Model, sampler: str, name: str, settings: dict[str, Any]) -> Decoded:
    prompts, lengths = [], []
    for text, length in PROMPTS:
        if length == 0 and "guidance" in settings:
            continue
        pieces = [model.encode(piece) if piece else [] for piece in text.split("[MASK]")]
        prompts.append([token for piece in pieces for token in (*piece, model.spec.mask_id)][:-1])
        lengths.append(length)
    fields = registry.resolve("sampler", sampler).Options.model_fields
    options = {"candidates": CANDIDATES} if "candidates" in fields else {}
    results = api.decode(
        model, prompts, sampler, options, name, gen_length=lengths, block_length=BLOCK, seed=1, **settings
    )
    return [essence(result) for result in results]


def first_difference(expected: Decoded, found: Decoded) -> dict[str, Any] | None:
    """The row and the step at which two decodes part, and what each did there (None: it had ended); None if they do
    not."""
    for row, (ours, theirs) in enumerate(zip(expected, found, strict=True)):
        for i in range(max(len(ours), len(theirs))):
            one, other = (lines[i] if i < len(lines) else None for lines in (ours, theirs))
            if one != other:
                step = (one or other or (None,))[0]
                return {"row": row, "step": step, "cpu": one, "device": other}
    return None
