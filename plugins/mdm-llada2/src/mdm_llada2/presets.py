"""The published recipes of LLaDA2.0 and LLaDA2.1. Imports no torch.

Settings are those of the model cards. The cards' figures are of tasks that are mostly none of ours, and the subset of
GPQA is not said there.
"""

from __future__ import annotations

from typing import Any

from mdm.protocols import Preset, TaskPreset

CARD20 = "inclusionAI/LLaDA2.0-mini, model card (arXiv:2512.15745)"
CARD21 = "inclusionAI/LLaDA2.1-mini, model card (arXiv:2602.08676)"
BLOCKS = {"temperature": 0.0, "block_length": 32, "cache": "block"}

LLADA20 = Preset(
    "LLaDA2.0, mini and flash: of each block of 32 all tokens that are surer than 0.95, and at least one a step. The "
    "published code leaves off at the first end token, so what would stand behind it is filled.",
    settings={
        **BLOCKS, "sampler": "sdar-dynamic", "tokens_per_step": 1, "gen_length": 512, "stop_at_eos": True,
        "options": {"sdar-dynamic": {"threshold": 0.95}},
    },
    tasks={"gpqa": TaskPreset({}, {}, 47.76, "accuracy", f"{CARD21}, the column of LLaDA2.0-mini")},
    families=("llada2",),
    source=CARD20,
)  # fmt: skip


def _edited(mode: str, threshold: float, edit_threshold: float, gpqa: float) -> Preset:
    options = {"threshold": threshold, "edit_threshold": edit_threshold, "max_post_steps": 16}
    settings: dict[str, Any] = {**BLOCKS, "sampler": "joint-threshold", "options": {"joint-threshold": options}}
    return Preset(
        f"LLaDA2.1, mini and flash, in {mode} mode: tokens surer than {threshold} are committed, and what was "
        f"committed is replaced where another token is surer than {edit_threshold}. The published length of 16384 is "
        "not set.",
        settings=settings,
        tasks={"gpqa": TaskPreset({}, {}, gpqa, "accuracy", f"{CARD21}, LLaDA2.1-mini")},
        families=("llada2",),
        source=CARD21,
    )


QUALITY = _edited("quality", 0.7, 0.5, 53.28)
SPEED = _edited("speed", 0.5, 0.0, 48.36)
