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

PICTURES = "yks23/Information-Gain-Sampler@0ae2da8, image scripts (arXiv:2602.18176)"
PACE = {"steps": 50}

T2I = Preset(
    "Info-Gain on MMaDA's pictures with the settings of its authors' scripts. Their command drops these, and draws by "
    "MaskGIT at a ranking temperature that stays 1; so figures published from it are not of this method.",
    settings={
        "sampler": "info-gain", "temperature": 1.0, "guidance": 3.5, "schedule": "maskgit", "cache": "none",
        "options": {"info-gain": {"candidates": 4, "position_temperature": 0.1}}, **PACE,
    },
    tasks={"geneval": TaskPreset(PACE, source=PICTURES), "prompts": TaskPreset(PACE, source=PICTURES)},
    families=("mmada",),
    source=PICTURES,
)  # fmt: skip
