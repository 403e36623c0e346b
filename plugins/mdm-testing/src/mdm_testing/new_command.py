"""``mdm new``: writes the package of a new plugin."""

from __future__ import annotations

from pathlib import Path

import click

KINDS = ("sampler", "cache", "model", "task")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option(
    "--into", type=click.Path(path_type=Path), default=".", show_default=True, help="The folder it goes into."
)
def new(kind: str, name: str, into: Path) -> None:
    """Write a package for a plugin: code, tests, README, licence, CI.

    It installs and passes its tests as written.
    """
    from mdm_testing.scaffold import create

    files = create(kind, name, into)
    folder = into / f"mdm-{name}"
    for path in files:
        click.echo(str(path))
    click.echo(f"\nNow:\n  pip install -e {folder}\n  mdm check {name}\nand edit {files[-2]}")
