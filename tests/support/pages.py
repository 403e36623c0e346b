"""The documentation's folder, and its scripts run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys

from goldens import ROOT

DOCS = ROOT / "docs"


def python(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run python in the repository's root, offline."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **env}
    return subprocess.run(
        [sys.executable, *args], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
