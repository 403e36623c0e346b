"""``mdm judge``: a language model reads what runs have written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mdm.errors import MdmError
from mdm.runs import files

from mdm_writing.endpoint import KEY
from mdm_writing.questions import CRITERIA

if TYPE_CHECKING:
    from mdm_writing.judging import Judgement

FOLDER = click.Path(path_type=Path, file_okay=False)
EXISTING = click.Path(path_type=Path, file_okay=False, exists=True)


class Finite(click.FloatRange):
    """A number that is not NaN or infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


MODE = (
    "pairwise: each run against the first, in both orders; single: every text gets a rating "
    " [default: by how many runs there are]"
)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=EXISTING)
@click.option("--judge-model", required=True, metavar="NAME", help="The judging model, as its endpoint calls it.")
@click.option("--judge-base-url", metavar="URL", help="An OpenAI-compatible endpoint.  [default: OpenAI's own]")
@click.option("--judge-key-env", default=KEY, show_default=True, metavar="NAME", help="Variable that holds the key.")
@click.option("--mode", type=click.Choice(["auto", "pairwise", "single"]), default="auto", help=MODE)
@click.option("--criteria", default=CRITERIA, metavar="TEXT", help="What the judge looks at.")
@click.option("--intersect", is_flag=True, help="Judge the examples that both runs have, where they differ.")
@click.option("--limit", type=click.IntRange(1), help="Only the first examples of each run.")
@click.option("--temperature", type=Finite(0), help="Sent to the judge.  [default: not sent]")
@click.option("--workers", type=click.IntRange(1, 256), default=8, show_default=True, help="Requests at once.")
@click.option(
    "--retries", type=click.IntRange(0, 100), default=6, show_default=True, help="After 429, 5xx and the like."
)
@click.option("--timeout", type=Finite(1), default=120, show_default=True, help="Of a whole request, in seconds.")
@click.option("--retry-malformed", is_flag=True, help="Ask again where an answer could not be read.")
@click.option("--price-in", type=Finite(0), metavar="USD", help="Per million prompt tokens.")
@click.option("--price-out", type=Finite(0), metavar="USD", help="Per million answered tokens.")
@click.option(
    "--out", type=FOLDER, metavar="FOLDER", help="For judgements.jsonl and judge.json.  [default: the first run]"
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else there.")
def judge(runs: tuple[Path, ...], as_json: bool, out: Path | None, **flags: Any) -> int:
    """Let a language model judge what runs have written.

    Judgements are kept and never bought twice: the same command goes on where it stopped.
    """
    from mdm_writing import judging
    from mdm_writing.endpoint import Endpoint
    from mdm_writing.entrants import Entrant, read_runs
    from mdm_writing.questions import pairwise, ratings

    entrants = read_runs(runs)
    if flags["limit"]:
        entrants = [Entrant(e.label, dict(list(e.writings.items())[: flags["limit"]])) for e in entrants]
    single = flags["mode"] == "single" or (flags["mode"] == "auto" and len(entrants) == 1)
    if not single and len(entrants) < 2:
        raise MdmError("pairwise judging needs two runs: name another one, or use --mode single")
    if single:
        questions = ratings(entrants, flags["criteria"])
    else:
        others = entrants[1:]
        questions = [q for e in others for q in pairwise(entrants[0], e, flags["criteria"], flags["intersect"])]
    endpoint = Endpoint(
        flags["judge_model"], flags["judge_base_url"], key_variable=flags["judge_key_env"], retries=flags["retries"],
        timeout=flags["timeout"],
    )  # fmt: skip
    name = f"{endpoint.name}\0{flags['temperature']}"
    folder = out or runs[0]
    with judging.opened(folder, flags["retry_malformed"]) as book:
        to_ask = [question for question in questions if not question.same]
        before = len(judging.verdicts(book, to_ask, name))
        stopped = False
        try:
            with endpoint, _progress(before, len(to_ask)) as tick:
                judging.settle(
                    book, to_ask, name, lambda text: endpoint.ask(text, flags["temperature"]), flags["workers"], tick
                )
        except MdmError as error:
            kept = len(judging.verdicts(book, to_ask, name))
            raise MdmError(f"{error} ({kept} of {len(to_ask)} judgements are kept; the same command goes on)") from None
        except KeyboardInterrupt:
            stopped = True
        known = judging.verdicts(book, questions, name)
        asked = {question.key(name) for question in questions}
        summary: dict[str, Any] = {
            "judge": flags["judge_model"],
            "mode": "single" if single else "pairwise",
            "complete": len(known) == len(questions),
            "questions": len(questions),
            "malformed": sum(verdict is None for verdict in known.values()),
            "results": [judging.score(e.label, known) for e in entrants]
            if single
            else [judging.win_rate(entrants[0].label, e.label, known) for e in entrants[1:]],
            "now": judging.spending(book.bought, flags["price_in"], flags["price_out"]),
            "altogether": judging.spending(
                (record for key, record in book.by_key.items() if key in asked), flags["price_in"], flags["price_out"]
            ),
        }
        files.write_json(folder / "judge.json", summary)
    for remark in _remarks(book.bought):
        click.echo(f"mdm: {remark}", err=True)
    if as_json:
        click.echo(files.to_json(summary, indent=2))
    else:
        _show(summary, folder)
    if stopped:
        click.echo("mdm: interrupted; the same command goes on", err=True)
        return 130
    return 0


def _remarks(bought: Sequence[Judgement]) -> Iterator[str]:
    """What was odd about the replies that were bought now, a line for each kind."""
    faults = [record.fault for record in bought if record.fault is not None]
    if faults:
        yield (f"{len(faults)} of {len(bought)} replies were no chat completions and count as malformed, the first "
               f"because of {faults[0]}")  # fmt: skip
    unknown = sum(None in (record.prompt_tokens, record.completion_tokens) for record in bought)
    if unknown > len(faults):
        yield f"{unknown} of {len(bought)} replies did not say how many tokens they cost: the sums are without them"


def _progress(done: int, total: int) -> Any:
    """A bar on stderr; gives what to call after each judgement."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import Progress

    @contextmanager
    def bar() -> Any:
        console = Console(stderr=True)
        with Progress(console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("judging", total=total, completed=done)
            yield lambda: progress.advance(task)

    return bar()


def _show(summary: dict[str, Any], folder: Path) -> None:
    from mdm.cli.tables import show

    if summary["mode"] == "single":
        numbers: tuple[str, ...] = ("examples", "score", "95% interval")
        rows = [
            [r["entrant"], str(r["examples"]), _number(r["score"], "{:.2f}"), _interval(r["score_ci95"], "{:.2f}")]
            for r in summary["results"]
        ]
        show(["run", *numbers], rows, right=numbers)
    else:
        numbers = ("examples", "wins", "ties", "losses", "win rate", "95% interval", "orders agree")
        rows = [
            [
                r["challenger"], r["baseline"], *(str(r[name]) for name in ("examples", "wins", "ties", "losses")),
                _number(r["win_rate"], "{:.1%}"), _interval(r["win_rate_ci95"], "{:.1%}"),
                _number(r["agreement"], "{:.0%}"),
            ]
            for r in summary["results"]
        ]  # fmt: skip
        show(["run", "against", *numbers], rows, right=numbers)
    if summary["malformed"]:
        click.echo(f"{summary['malformed']} answers could not be read and do not count (--retry-malformed asks again)")
    for title, spent in (("now", summary["now"]), ("altogether", summary["altogether"])):
        cost = "" if spent["cost"] is None else f", {spent['cost']:.4f} USD"
        click.echo(
            f"{title}: {spent['judgements']:,} judgements, {spent['prompt_tokens']:,} prompt tokens, "
            f"{spent['completion_tokens']:,} answered tokens{cost}"
        )
    click.echo(f"judgements: {folder / 'judgements.jsonl'}")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _interval(value: list[float] | None, form: str) -> str:
    return "" if value is None else f"{form.format(value[0])} to {form.format(value[1])}"
