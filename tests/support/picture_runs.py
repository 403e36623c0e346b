"""Folders as runs of pictures leave them, made without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mdm.runs import config as configs
from mdm.runs.config import RunConfig
from mdm.runs.results import ExampleResult
from mdm.runs.variants import variants
from PIL import Image


def make(
    folder: Path, images: Sequence[np.ndarray], prompts: Sequence[str] = (), *, samplers: Sequence[str] = ("one",)
) -> Path:
    """A run in which each sampler drew ``images`` (uint8, RGB; None: the example failed), last row first."""
    settled = RunConfig(task="prompts", sampler=list(samplers))
    folder.mkdir()
    (folder / "config.yaml").write_text(configs.to_yaml(settled))
    for variant in variants(settled, folder):
        (variant.results.folder / "images").mkdir(parents=True)
        with variant.results.writing() as log:
            for i, image in reversed(list(enumerate(images))):
                if image is not None:
                    Image.fromarray(image).save(variant.results.folder / "images" / f"{i}.png")
                result = ExampleResult(
                    id=f"p{i}", index=i, repeat=0, row=i, digest="d", prompt=prompts[i] if prompts else f"picture {i}",
                    completion="", metrics={}, tokens=4, cumulative_entropy=0.0, forwards=4, rows=4, seconds=0.1,
                    image=None if image is None else f"images/{i}.png",
                    error="RuntimeError: no" if image is None else None,
                )  # fmt: skip
                log.add(result, [])
    return folder
