"""``mdm check``: the conformance kit from the shell."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import click
from mdm import registry
from mdm.data.documents import parse_yaml
from mdm.errors import MdmError, suggest
from mdm.runs.files import to_json

if TYPE_CHECKING:
    from mdm_testing import Check, Outcome, Subject

CHECKED = ("sampler", "cache", "model", "task", "preset")
EVERY = 5.0
"""Seconds between lines of what is being checked, where stderr is no terminal."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
WORDS = {"expected": "fails, as expected", "unexpected": "passes, unexpectedly"}


@click.command(short_help="Run the conformance kit against an installed plugin.")
@click.argument("name")
@click.option("--kind", type=click.Choice(CHECKED), help="Where several kinds have a plugin of that name.")
@click.option("-o", "assignments", multiple=True, metavar="OPTION=VALUE", help="An option of the plugin.")
@click.option("--data", type=click.Path(path_type=Path), help="Of a task: the file its examples come from.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Of a model family: a folder to load.")
@click.option(
    "-k",
    "names",
    multiple=True,
    metavar="NAME",
    help="Run only this check, or those with NAME in their names. May be repeated.",
)
@click.option("-x", "stop", is_flag=True, help="Stop after the first check that fails.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, metavar="SECONDS",
    help="How long each check may take.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else there.")
def check(
    name: str, kind: str | None, assignments: tuple[str, ...], data: Path | None, checkpoint: Path | None,
    names: tuple[str, ...], stop: bool, timeout: float, as_json: bool,
) -> int:  # fmt: skip
    """Run the conformance kit against an installed plugin; exit code 1 if a check fails.

    Samplers and caches run on a toy model made on the spot; nothing is downloaded.
    """
    from mdm_testing.suite import check_names, run, subject

    kind, options = kind or _kind(name), _options(name, assignments)
    for flag, given, its in (("--data", data, "task"), ("--checkpoint", checkpoint, "model")):
        if given is not None and kind != its:
            raise MdmError(f"{flag} is for a {its}, and {name} is a {kind}")
    check_names(kind, names)
    outcomes: list[Outcome] = []
    running = ""
    try:
        with _progress(f"{kind} {name}") as show:

            def on_check(check: Check) -> None:
                nonlocal running
                running = check.name
                show(check)

            of = subject(kind, name, options=options, data=data, checkpoint=checkpoint)
            for outcome in run(of, names=names, timeout=timeout, on_check=on_check):
                outcomes.append(outcome)
                running = ""
                if stop and not outcome.ok:
                    break
    except KeyboardInterrupt:
        if outcomes:
            _report(of, outcomes, as_json, ended=False)
        click.echo(f"mdm: interrupted{f' in {running}' if running else ''}", err=True)
        return INTERRUPTED
    return _report(of, outcomes, as_json)


def _report(of: Subject, outcomes: Sequence[Outcome], as_json: bool, ended: bool = True) -> int:
    """Print what came out; 1 if a check failed."""
    name = of.name
    failed = sum(not outcome.ok for outcome in outcomes)
    if as_json:
        records = [asdict(outcome) for outcome in outcomes]
        report = {"kind": of.kind, "name": name, "package": of.package, "ok": ended and not failed, "checks": records}
        click.echo(to_json(report, indent=2))
        return int(failed > 0)
    from mdm.cli.tables import show

    show(
        ["check", "", "what it checks"],
        [[outcome.check, WORDS.get(outcome.status, outcome.status), outcome.about] for outcome in outcomes],
    )
    for outcome in outcomes:
        if outcome.detail and not outcome.same_as:
            click.echo(f"{outcome.check} {WORDS.get(outcome.status, outcome.status)}: {outcome.detail}")
            if outcome.where:
                click.echo(f"    at {outcome.where}")
            if same := [other.check for other in outcomes if other.same_as == outcome.check]:
                click.echo(f"    and so, for the same reason: {', '.join(same)}")
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


@contextmanager
def _progress(label: str) -> Iterator[Callable[[Check], None]]:
    """What is being waited for, on stderr: a line that changes or, where that is no terminal, one every few seconds.

    Gives what is told of each check before it runs.
    """
    numbers, line, ended = count(1), f"checking {label}", Event()

    def said(check: Check) -> None:
        nonlocal line
        line = f"checking {label}: {next(numbers)}. {check.name}"

    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(line) as status:

            def show(check: Check) -> None:
                said(check)
                status.update(line)

            yield show
        return

    def tell() -> None:
        while not ended.wait(EVERY):
            click.echo(line, err=True)

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield said
    finally:
        ended.set()
        teller.join()
