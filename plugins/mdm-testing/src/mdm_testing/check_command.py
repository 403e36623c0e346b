"""``mdm check``: the conformance kit from the shell."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mdm import registry
from mdm.data.documents import parse_yaml
from mdm.errors import MdmError, suggest

if TYPE_CHECKING:
    from mdm_testing import Outcome

CHECKED = ("sampler", "cache", "model", "task", "preset")
WORDS = {"expected": "fails, as expected", "unexpected": "passes, unexpectedly"}


@click.command(short_help="Run the conformance kit against an installed plugin.")
@click.argument("name")
@click.option("--kind", type=click.Choice(CHECKED), help="Where several kinds have a plugin of that name.")
@click.option("-o", "assignments", multiple=True, metavar="OPTION=VALUE", help="An option of the plugin.")
@click.option("--data", type=click.Path(path_type=Path), help="Of a task: the file its examples come from.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Of a model family: a folder to load.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else there.")
def check(
    name: str, kind: str | None, assignments: tuple[str, ...], data: Path | None, checkpoint: Path | None, as_json: bool
) -> int:
    """Run the conformance kit against an installed plugin; exit code 1 if a check fails.

    Samplers and caches run on a toy model made on the spot; nothing is downloaded.
    """
    import mdm_testing

    of = mdm_testing.subject(
        kind or _kind(name), name, options=_options(name, assignments), data=data, checkpoint=checkpoint
    )
    outcomes: list[Outcome] = []
    for outcome in _with_progress(mdm_testing.run(of), f"{of.kind} {name}"):
        outcomes.append(outcome)
    failed = sum(not outcome.ok for outcome in outcomes)
    if as_json:
        records = [asdict(outcome) for outcome in outcomes]
        report = {"kind": of.kind, "name": name, "package": of.package, "ok": not failed, "checks": records}
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return int(failed > 0)
    from mdm.cli.tables import show

    show(
        ["check", "", "what it checks"],
        [[outcome.check, WORDS.get(outcome.status, outcome.status), outcome.about] for outcome in outcomes],
    )
    for outcome in outcomes:
        if outcome.detail:
            click.echo(f"{outcome.check} {WORDS.get(outcome.status, outcome.status)}: {outcome.detail}")
    passed = sum(outcome.status == "passed" for outcome in outcomes)
    click.echo(f"{of.kind} {name}: {passed} of {len(outcomes)} checks pass, {failed} fail")
    return int(failed > 0)


def _kind(name: str) -> str:
    kinds = [kind for kind in CHECKED if name in registry.names(kind)]
    if len(kinds) > 1:
        raise MdmError(f"{name!r} is a {' and a '.join(kinds)}: say which with --kind")
    if not kinds:
        known = [other for kind in CHECKED for other in registry.names(kind)]
        raise MdmError(f"no plugin {name!r} is installed.{suggest(name, known)} `mdm plugins` lists them")
    return kinds[0]


def _options(name: str, assignments: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise MdmError(f"-o {assignment}: expected option=value")
        try:
            options[key.removeprefix(f"{name}.").replace("-", "_")] = parse_yaml(text)
        except ValueError as error:
            raise MdmError(f"-o {assignment}: {error}") from None
    return options


def _with_progress(outcomes: Any, label: str) -> Any:
    """The outcomes, with a line on stderr of what is being waited for."""
    from rich.console import Console

    with Console(stderr=True).status(f"checking {label}") as status:
        for number, outcome in enumerate(outcomes, 1):
            status.update(f"checking {label}: {number} done")
            yield outcome
