"""Makes results.md: every installed sampler on four tasks, at one and two tokens a step or at its own pace.

    python docs/make_results.py --sudoku FILE.csv --countdown FILE.jsonl [--num-processes N]

Runs go on where they stopped when it is called again with the same --runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mdm import registry
from mdm_report.compare_plot import plot_speed
from mdm_report.parallelism import accuracy_under_parallelism

HERE = Path(__file__).parent
RUNS = Path("runs/results")
PICTURE = "results.svg"


class Comparison(NamedTuple):
    task: str
    model: str
    columns: tuple[str, ...] = ()
    """further grades that the table shows"""


COMPARISONS = (
    Comparison("sudoku", "tiny"),
    Comparison("equations", "tiny"),
    Comparison("countdown", "tiny-countdown"),
    Comparison("judgment", "tiny-countdown", ("consistent", "verdict_rank")),
)
PAGE = """\
# Results

All installed samplers with their default options, which are the published ones where there are any, on the two
embedded models: sudoku and equations on `tiny`, countdown and judgment on `tiny-countdown`. Cache none, seed 0,
{limit} examples a task. Samplers that commit on a schedule run at one and two tokens a step (K); those of a pace of
their own run once, at their default thresholds or steps, since K does not matter to them.

![accuracy against tokens per forward]({picture})

Everything on this page is made, and made again, by

```console
{command}
```

## What the columns say

Differences are to `{baseline}`, at the same K or, of a sampler of its own pace, at K = 1: paired by example, with a
95 % bootstrap interval, wins/ties/losses and the exact McNemar test. Tokens/forward are all tokens of the answers,
end tokens too, by the forwards that an example took part in. Rows are sequences through the model, candidates
included: what lookahead costs shows there. Entropy is in nats; forwards and rows are per example.

Limits: two models of a million parameters, one set of examples and one seed a task. Many comparisons are made, so a
single p near 0.05 says little. What a threshold is worth depends on how sure a model is, and these are surer, or
less sure, than large ones. An answer of countdown is 24 tokens, of which about half are end tokens, which a sampler
may decode many at a time. The models were trained on masks alone, so what they say at a committed position means
little: samplers that edit by it suffer, `joint-threshold` most, which is made for models trained to edit.

## Accuracy under parallelism

AUP (d3LLM) is accuracy in percent by tokens per forward, counting only speeds at which a sampler loses at most 5
points, in full only where it is as good as the best of its task: more is better, and tasks cannot be compared with
each other. Of a sampler of its own pace there is one point. `mdm compare` has the formula.

{aup}
"""
SECTION = """
## {title}

```console
{commands}
```

{table}
"""


def mdm(*arguments: str, show: bool = True) -> str:
    """The standard output of ``mdm ARGUMENTS``; ends with its message where it fails."""
    done = subprocess.run([sys.executable, "-m", "mdm", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    if show:
        print(done.stdout)
    return done.stdout


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, all columns but the first to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cells(record: dict[str, Any], grades: Sequence[str]) -> list[str]:
    """A line of a task's table."""
    low, high = record["accuracy_ci95"]
    pair, paired = record.get("against"), [""] * 4
    if pair:
        start, end = pair["difference_ci95"]
        p_value = f"{pair['p_value']:.3f}" if pair["p_value"] >= 0.0005 else "<0.001"
        counts = f"{pair['wins']}/{pair['ties']}/{pair['losses']}"
        paired = [f"{pair['difference']:+.1%}", f"{start:+.1%} to {end:+.1%}", counts, p_value]
    return [
        record["sampler"], str(record["tokens_per_step"] or "own"), f"{record['accuracy']:.1%}",
        f"{low:.1%} to {high:.1%}", *paired, f"{record['tokens_per_forward']:.2f}",
        f"{record['forwards_per_example']:.1f}", f"{record['rows_per_example']:.1f}",
        f"{record['cumulative_entropy']:.3f}",
        *(f"{record['metrics'][grade]:.2f}" for grade in grades),
    ]  # fmt: skip


HEAD = (
    "sampler", "K", "accuracy", "95% interval", "difference", "its 95% interval", "wins/ties/losses", "p",
    "tokens/forward", "forwards", "rows", "cum. entropy",
)  # fmt: skip


def parallelism(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Sampler -> its AUP among these."""
    points: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        points.setdefault(record["sampler"], []).append((record["tokens_per_forward"], 100 * record["accuracy"]))
    best = max(accuracy for of in points.values() for _, accuracy in of)
    return {sampler: accuracy_under_parallelism(of, best) for sampler, of in points.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sudoku", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument("--countdown", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--num-processes", type=int, default=1)
    parser.add_argument("--sampler", action="append", help="only these (default: all installed)")
    parser.add_argument("--baseline", default="confidence")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the runs lie")
    parser.add_argument("--page", type=Path, default=HERE / "results.md")
    asked = parser.parse_args(arguments)
    data = {"sudoku": asked.sudoku, "countdown": asked.countdown}
    samplers = asked.sampler or registry.names("sampler")
    own = [sampler for sampler in samplers if registry.resolve("sampler", sampler).pace == "own"]
    paces = {"schedule": [sampler for sampler in samplers if sampler not in own], "own": own}
    found: dict[str, list[dict[str, Any]]] = {}
    sections = []
    for task, model, grades in COMPARISONS:
        commands, folders = [], []
        for pace, names in paces.items():
            if not names:
                continue
            out = asked.runs / task / pace
            run = ["run", "--model", model, "--task", task, "--limit", str(asked.limit), "--out", str(out)]
            run += ["--data", str(data[task])] if task in data else []
            run += ["--num-processes", str(asked.num_processes)] if asked.num_processes > 1 else []
            run += ["--tokens-per-step", "1", "--tokens-per-step", "2"] if pace == "schedule" else []
            run += [word for name in names for word in ("--sampler", name)]
            mdm(*run)
            folders.append(str(out))
            # What the page shows holds on any machine: the files by name, the runs in the default folder.
            shown = shlex.join(["mdm", *run]).replace(str(out), str(RUNS / task / pace))
            if task in data:
                shown = shown.replace(str(data[task]), data[task].name)
            commands.append(shown.replace(" --sampler", " \\\n  --sampler", 1))
        records = json.loads(mdm("compare", *folders, "--baseline", asked.baseline, "--json", show=False))
        title = f"{task.capitalize()} on {model}"
        found[title] = records = sorted(records, key=lambda record: (record["sampler"], record["tokens_per_step"] or 0))
        commands.append(
            f"mdm compare {' '.join(str(RUNS / task / Path(out).name) for out in folders)} --baseline {asked.baseline}"
        )
        rows = [cells(record, grades) for record in records]
        sections.append(SECTION.format(title=title, commands="\n".join(commands), table=table([*HEAD, *grades], rows)))
    plot_speed(found, asked.page.with_name(PICTURE))
    scores = [parallelism(records) for records in found.values()]
    aup = table(
        ["sampler", *(comparison.task for comparison in COMPARISONS)],
        [[sampler, *(f"{of[sampler]:.1f}" for of in scores)] for sampler in sorted(samplers)],
    )
    command = f"python docs/make_results.py --sudoku {asked.sudoku.name} --countdown {asked.countdown.name}"
    head = PAGE.format(limit=asked.limit, baseline=asked.baseline, picture=PICTURE, command=command, aup=aup)
    asked.page.write_text(head + "".join(sections), encoding="utf-8")
    print(f"written: {asked.page}")


if __name__ == "__main__":
    main()
