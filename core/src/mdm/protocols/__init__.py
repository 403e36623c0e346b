"""What plugins are written against: state, scores, samplers, caches, models, tasks, options and hooks.

A plugin imports all that it needs from here. A name's module is imported on first use, so that a task, or a listing of
plugins, imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.protocols.cache import BaseCache as BaseCache
    from mdm.protocols.cache import NoCache as NoCache
    from mdm.protocols.cache import Plan as Plan
    from mdm.protocols.draws import Draws as Draws
    from mdm.protocols.draws import mixed as mixed
    from mdm.protocols.hooks import Line as Line
    from mdm.protocols.hooks import StepEvent as StepEvent
    from mdm.protocols.hooks import hookimpl as hookimpl
    from mdm.protocols.lookahead import Actions as Actions
    from mdm.protocols.lookahead import Lookahead as Lookahead
    from mdm.protocols.lookahead import LookaheadOptions as LookaheadOptions
    from mdm.protocols.model import Attention as Attention
    from mdm.protocols.model import Autoregressive as Autoregressive
    from mdm.protocols.model import ModelSpec as ModelSpec
    from mdm.protocols.model import Network as Network
    from mdm.protocols.model import PromptStyle as PromptStyle
    from mdm.protocols.options import NoOptions as NoOptions
    from mdm.protocols.rowwise import Rowwise as Rowwise
    from mdm.protocols.sampler import BaseSampler as BaseSampler
    from mdm.protocols.sampler import CandidateScores as CandidateScores
    from mdm.protocols.sampler import Commit as Commit
    from mdm.protocols.sampler import Decision as Decision
    from mdm.protocols.sampler import Evaluate as Evaluate
    from mdm.protocols.scores import Scores as Scores
    from mdm.protocols.scores import ranks as ranks
    from mdm.protocols.scores import top_k as top_k
    from mdm.protocols.state import State as State
    from mdm.protocols.task import MASK as MASK
    from mdm.protocols.task import BaseTask as BaseTask
    from mdm.protocols.task import Example as Example
    from mdm.protocols.task import Message as Message
    from mdm.protocols.task import Prompt as Prompt

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
