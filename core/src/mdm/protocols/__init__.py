"""The seams in the words of the field: state, scores, sampler, cache, model, task, options, hooks.

Everything that a plugin needs is imported from here. Names are resolved on first use, so that a task or a listing
imports no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.protocols.cache import CacheMode as CacheMode
    from mdm.protocols.cache import NoCache as NoCache
    from mdm.protocols.cache import Plan as Plan
    from mdm.protocols.draws import Draws as Draws
    from mdm.protocols.hooks import Line as Line
    from mdm.protocols.hooks import StepEvent as StepEvent
    from mdm.protocols.hooks import hookimpl as hookimpl
    from mdm.protocols.lookahead import Actions as Actions
    from mdm.protocols.lookahead import Lookahead as Lookahead
    from mdm.protocols.lookahead import LookaheadOptions as LookaheadOptions
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
    from mdm.protocols.sampler import Sampler as Sampler
    from mdm.protocols.scores import Scores as Scores
    from mdm.protocols.scores import ranks as ranks
    from mdm.protocols.scores import top_k as top_k
    from mdm.protocols.state import State as State
    from mdm.protocols.task import MASK as MASK
    from mdm.protocols.task import Example as Example
    from mdm.protocols.task import Message as Message
    from mdm.protocols.task import Prompt as Prompt
    from mdm.protocols.task import Task as Task

_HOME = {
    "CacheMode": "cache",
    "NoCache": "cache",
    "Plan": "cache",
    "Draws": "draws",
    "Line": "hooks",
    "StepEvent": "hooks",
    "hookimpl": "hooks",
    "Actions": "lookahead",
    "Lookahead": "lookahead",
    "LookaheadOptions": "lookahead",
    "Autoregressive": "model",
    "ModelSpec": "model",
    "Network": "model",
    "PromptStyle": "model",
    "NoOptions": "options",
    "Rowwise": "rowwise",
    "BaseSampler": "sampler",
    "Commit": "sampler",
    "Decision": "sampler",
    "Evaluate": "sampler",
    "Sampler": "sampler",
    "CandidateScores": "sampler",
    "Scores": "scores",
    "ranks": "scores",
    "top_k": "scores",
    "State": "state",
    "Example": "task",
    "MASK": "task",
    "Message": "task",
    "Prompt": "task",
    "Task": "task",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
