"""The published settings of the Info-Gain Sampler. Imports no torch.

No figure stands beside them: those of the paper are of several models, versions and numbers of tokens a step, and which
of them these settings gave is not published with the settings.
"""

from __future__ import annotations

from mdm.protocols import Preset, TaskPreset

README = "yks23/Information-Gain-Sampler, README (arXiv:2602.18176)"

PAPER = Preset(
    "Info-Gain as its authors' README runs it, on any masked diffusion model. The paper's figures differ by model, "
    "version and tokens a step, so none is quoted here.",
    settings={
        "sampler": "info-gain",
        "options": {"info-gain": {"candidates": 8, "position_temperature": 0.2, "threshold": 0.8}},
    },
    tasks={
        "gsm8k": TaskPreset({"gen_length": 256, "steps": 256, "block_length": 32, "cache": "prefix"}, source=README),
        "math500": TaskPreset({"gen_length": 512, "steps": 256}, source=README),
        "humaneval": TaskPreset({"gen_length": 512, "steps": 256}, source=README),
        "creative-writing": TaskPreset({"gen_length": 512, "steps": 512, "temperature": 0.7}, source=README),
    },
    source=README,
)
