"""Every installed plugin of ours keeps what its kind promises."""

from __future__ import annotations

import tiny_families
from goldens import SHARED
from mdm import registry
from mdm_testing import Subject, parametrize_with_checks, subject

DATA = {
    "gsm8k": "gsm8k_test.jsonl", "math500": "math500_test.jsonl", "gpqa": "gpqa.jsonl",
    "creative-writing": "creative_writing.jsonl", "geneval": "geneval_metadata.jsonl",
}  # fmt: skip
"""Tasks whose examples come from a file."""
OPTIONS = {"geneval": {"grading": "later"}}
"""Options of tasks that grade with checkpoints."""


def tasks() -> list[Subject]:
    found = []
    for name in registry.names("task"):
        path = SHARED / "data" / DATA[name] if name in DATA else None
        data = path if path and path.is_file() else None
        found.append(subject("task", name, data=data, options=OPTIONS.get(name, {})))
    return found


@parametrize_with_checks("sampler", registry.names("sampler"))
def test_samplers(check):
    check()


@parametrize_with_checks("cache", registry.names("cache"))
def test_caches(check):
    check()


@parametrize_with_checks("task", tasks())
def test_tasks(check):
    check()


@parametrize_with_checks("preset", registry.names("preset"))
def test_presets(check):
    check()


def families() -> list[Subject]:
    """Each family of which a random checkpoint can be made on the spot."""
    folder = tiny_families.SCRATCH
    return [
        subject("model", name, checkpoint=tiny_families.save(folder / name, name))
        for name in registry.names("model")
        if name in tiny_families.CONFIGS
    ]


@parametrize_with_checks("model", families())
def test_models(check):
    check()
