"""A device that is not the CPU, on any machine: tensors without values that refuse to meet tensors of the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from mdm.protocols import Commit
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mdm_testing.kit import NotApplicable, Subject, check
from mdm_testing.probe import Watched, at_step, decode, prompts
from mdm_testing.toy import toy_model

DEVICE = torch.device("meta")
"""The device of tensors that have shapes and no values."""


@check("sampler")
def makes_its_tensors_on_the_device(of: Subject) -> None:
    """What it makes lies where the canvases lie: it decides on a device that is not the CPU's."""
    watched = Watched(of.make())
    decode(toy_model(), prompts()[:2], watched, tokens_per_step=2, temperature=0.7)
    for seen in watched.decided[:3]:
        step, sampler = f"step {at_step(seen)}: ", of.make()
        state, scores, memory = _move(seen.state), replace(_move(seen.scores), redraw=None), _move(seen.memory)
        draws, answers = replace(_move(seen.draws), noise_cache=None), [_move(answer) for answer in seen.answers]
        with _Apart(), torch.inference_mode():
            try:
                commit = _decided(sampler, state, scores, memory, draws, answers)
                told = {name: getattr(sampler, name)(state, memory) for name in ("finished", "lingers")}
            except RuntimeError as error:  # what has no values cannot be asked for them
                raise NotApplicable(f"it asks for values: {str(error).splitlines()[0][:60]}") from error
            _check({f"{step}{name}": part for name, part in {"its Commit": commit, **told}.items()})


_HINT = ": name the device where a tensor is made, with device=state.device"


def _decided(sampler: Any, state: Any, scores: Any, memory: Any, draws: Any, answers: list[Any]) -> Commit:
    decision = sampler.decide(state, scores, memory, draws)
    if isinstance(decision, Commit):
        return decision
    try:
        asked = next(decision)
        for answer in answers:
            _check({"its Evaluate": asked})
            asked = decision.send(answer)
    except StopIteration as end:
        commit: Commit = end.value
        return commit
    raise NotApplicable("it looks further ahead than it did before")


def _check(parts: dict[str, Any]) -> None:
    for name, part in parts.items():
        for field, tensor in _tensors(name, part):
            assert tensor.device == DEVICE, f"{field} is on {tensor.device}, and the canvas is not{_HINT}"


def _tensors(name: str, part: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield name, part
    elif is_dataclass(part):
        for field in fields(part):
            yield from _tensors(f"{name}.{field.name}", getattr(part, field.name))


class _Apart(TorchDispatchMode):
    """Refuses operations on tensors of ``DEVICE`` and of the host, as an accelerator does."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        # A single number may be the host's, and so may an index; copies are what goes from one to the other.
        own = flat[:1] if func in _INDEXING else [] if func in _COPIES else flat
        devices = {t.device for t in own if t.dim() or t.device == DEVICE}
        assert len(devices) < 2, f"{func.__name__} is given tensors of two devices{_HINT}"
        return func(*args, **(kwargs or {}))


aten = torch.ops.aten
_COPIES = {aten._to_copy.default, aten.copy_.default}
_INDEXING = {aten.index.Tensor}


def _move(item: Any) -> Any:
    """A record with its tensors on ``DEVICE``."""
    if isinstance(item, Tensor):
        return item.to(DEVICE)
    if not is_dataclass(item) or isinstance(item, type):
        return item
    return replace(item, **{f.name: _move(getattr(item, f.name)) for f in fields(item) if f.init})
