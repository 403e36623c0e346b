"""Which device this is, in which versions, and how fast its memory is copied."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mdm_bench.decode import bandwidth, device_name
from mdm_bench.gpu.parts import Options, Part

PACKAGES = ("mdm-core", "mdm-bench", "torch", "transformers", "triton", "numpy")
ASKED = "driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu"


def part(options: Options) -> Part:
    """What the page begins with."""
    found = {"device": _device, "versions": _versions, "driver": _driver, "copy": _copy}
    return Part(list(found), lambda cell: found[cell](options), limit=30)


def _device(options: Options) -> dict[str, Any]:
    device = torch.device(options.device)
    found: dict[str, Any] = {"name": device_name(device), "cores": os.cpu_count()}
    if options.on_gpu:
        free, total = torch.cuda.mem_get_info(device)
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        found |= {"memory_bytes": total, "free_bytes": free, "capability": capability}
    return found


def _versions(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "cuda": torch.version.cuda, "commit": _commit()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _driver(options: Options) -> dict[str, Any]:
    """What the driver says of itself; clocks are those of an idle card."""
    if not options.on_gpu:
        return {}
    index = torch.device(options.device).index or 0
    query = ["nvidia-smi", f"--id={index}", f"--query-gpu={ASKED}", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    return dict(zip(ASKED.split(","), (value.strip() for value in said.split(",")), strict=False))


def _copy(options: Options) -> dict[str, Any]:
    return {"bytes_per_second": bandwidth(options.device)}


def _commit() -> str | None:
    """The commit that the sources lie in, where they lie in a checkout."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
