"""``mdm ray-run``."""

from __future__ import annotations

import click


@click.command("ray-run")
def ray_run() -> None:
    """Make a run on a Ray cluster."""
