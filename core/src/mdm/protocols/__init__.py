"""What plugins are written against: state, scores, samplers, caches, models, tasks, options and hooks.

A plugin imports all that it needs from here. A name's module is imported on first use, so that a task, or a listing of
plugins, imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.protocols.cache import BaseCache as BaseCache, NoCache as NoCache, Plan as Plan
    from mdm.protocols.draws import Draws as Draws, mixed as mixed
    from mdm.protocols.hooks import Line as Line, StepEvent as StepEvent, hookimpl as hookimpl
    from mdm.protocols.lookahead import Actions as Actions, Lookahead as Lookahead, LookaheadOptions as LookaheadOptions
    from mdm.protocols.model import (
        Attention as Attention,
        Autoregressive as Autoregressive,
        ModelSpec as ModelSpec,
        Network as Network,
        PromptStyle as PromptStyle,
    )
    from mdm.protocols.options import NoOptions as NoOptions
    from mdm.protocols.rowwise import Rowwise as Rowwise
    from mdm.protocols.sampler import (
        BaseSampler as BaseSampler,
        CandidateScores as CandidateScores,
        Commit as Commit,
        Decision as Decision,
        Evaluate as Evaluate,
    )
    from mdm.protocols.scores import Scores as Scores, ranks as ranks, top_k as top_k
    from mdm.protocols.state import State as State
    from mdm.protocols.task import (
        MASK as MASK,
        BaseTask as BaseTask,
        Example as Example,
        Message as Message,
        Prompt as Prompt,
    )

_NAMES = {
    "cache": ("BaseCache", "NoCache", "Plan"),
    "draws": ("Draws", "mixed"),
    "hooks": ("Line", "StepEvent", "hookimpl"),
    "lookahead": ("Actions", "Lookahead", "LookaheadOptions"),
    "model": ("Attention", "Autoregressive", "ModelSpec", "Network", "PromptStyle"),
    "options": ("NoOptions",),
    "rowwise": ("Rowwise",),
    "sampler": ("BaseSampler", "CandidateScores", "Commit", "Decision", "Evaluate"),
    "scores": ("Scores", "ranks", "top_k"),
    "state": ("State",),
    "task": ("MASK", "BaseTask", "Example", "Message", "Prompt"),
}
"""Module -> the names that it defines."""
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
