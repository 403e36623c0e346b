"""What plugins are written against: state, scores, samplers, caches, models, tasks, presets, options and hooks.

A plugin imports all that it needs from here. A name's module is imported on first use, so that a task, or a listing of
plugins, imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.protocols.beams import all_filled, best_rows, best_successors
    from mdm.protocols.cache import AttentionMap, BaseCache, BlockCache, LayerCache, NoCache, Plan, Seen
    from mdm.protocols.draws import Draws, mixed
    from mdm.protocols.hooks import Line, StepEvent, hookimpl
    from mdm.protocols.lookahead import Actions, Lookahead, LookaheadOptions
    from mdm.protocols.model import Attention, Autoregressive, ModelSpec, Network, PromptStyle
    from mdm.protocols.options import NoOptions
    from mdm.protocols.preset import Preset, TaskPreset
    from mdm.protocols.rowwise import Rowwise
    from mdm.protocols.sampler import BaseSampler, CandidateScores, Commit, Decision, Evaluate
    from mdm.protocols.scores import Scores, ranks, top_k
    from mdm.protocols.state import State
    from mdm.protocols.task import MASK, BaseTask, Example, Message, Picture, Piece, Prompt

__all__ = [
    "MASK", "Actions", "Attention", "AttentionMap", "Autoregressive", "BaseCache", "BaseSampler", "BaseTask",
    "BlockCache", "CandidateScores", "Commit", "Decision", "Draws", "Evaluate", "Example", "LayerCache", "Line",
    "Lookahead", "LookaheadOptions", "Message", "ModelSpec", "Network", "NoCache", "NoOptions", "Picture", "Piece",
    "Plan", "Preset", "Prompt", "PromptStyle", "Rowwise", "Scores", "Seen", "State", "StepEvent", "TaskPreset",
    "all_filled", "best_rows", "best_successors", "hookimpl", "mixed", "ranks", "top_k",
]  # fmt: skip

_NAMES = {
    "beams": ("all_filled", "best_rows", "best_successors"),
    "cache": ("AttentionMap", "BaseCache", "BlockCache", "LayerCache", "NoCache", "Plan", "Seen"),
    "draws": ("Draws", "mixed"),
    "hooks": ("Line", "StepEvent", "hookimpl"),
    "lookahead": ("Actions", "Lookahead", "LookaheadOptions"),
    "model": ("Attention", "Autoregressive", "ModelSpec", "Network", "PromptStyle"),
    "options": ("NoOptions",),
    "preset": ("Preset", "TaskPreset"),
    "rowwise": ("Rowwise",),
    "sampler": ("BaseSampler", "CandidateScores", "Commit", "Decision", "Evaluate"),
    "scores": ("Scores", "ranks", "top_k"),
    "state": ("State",),
    "task": ("MASK", "BaseTask", "Example", "Message", "Picture", "Piece", "Prompt"),
}  # fmt: skip
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
