"""What ``mdm generate`` decodes with, and what it prints of a result as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.models.layout import Layout
    from mdm.models.model import Model
    from mdm.runs.config import PromptConfig


def decode(
    config: PromptConfig, model: Model, layouts: Sequence[Layout], watched: bool, **arguments: Any
) -> list[Result]:
    """Decode layouts as a configuration says, and show the canvas where it is to be ``watched``."""
    from mdm import api
    from mdm.cli.live import live_view
    from mdm.engine.memory import POSITION_BYTES, check_many
    from mdm.runs.decode_args import begin_view, decode_settings
    from mdm.runs.variants import AUTOREGRESSIVE, without_policy

    if model.spec.attention == "causal":
        config = without_policy(config)
    sampler = next(iter(config.sampler), AUTOREGRESSIVE)
    settings = decode_settings(config, model, sampler) | arguments
    with live_view() if watched else nullcontext() as view:
        if view:
            check_many("gen_length", max(layout.gen_length or 0 for layout in layouts), POSITION_BYTES)
            begin_view(view, sampler, model, dict(enumerate(layouts)))
            settings |= {"trace": "full", "on_step": view.on_step}
        return api.decode(model, layouts, **settings)


def record(config: PromptConfig, result: Result) -> dict[str, Any]:
    """What ``--json`` prints of a result."""
    from mdm.protocols.hooks import plain

    return {
        "tokens": list(result.tokens), "sequence": list(result.sequence),
        "cumulative_entropy": float(result.cumulative_entropy), "forwards": result.forwards, "rows": result.rows,
        "trace": list(result.trace) if config.trace == "full" else [plain(line) for line in result.trace],
    }  # fmt: skip
