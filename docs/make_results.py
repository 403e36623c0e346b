"""Makes results.md: every installed sampler at one and two tokens a step, on sudoku and countdown.

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

from mdm import registry

HERE = Path(__file__).parent
RUNS = Path("runs/results")
PAGE = """\
# Results

All samplers with their default options on the embedded model `tiny`, cache none, seed 0, {limit} examples a task, at
one and two tokens a step (K). `eb` and the samplers that commit by a threshold choose their own pace; `remdm` has its
own number of steps. Differences are to `{baseline}` at the same K, paired by example, with a 95 % bootstrap interval,
wins/ties/losses and the exact McNemar test; many comparisons are made, so a single p near 0.05 says little. Entropy is
in nats; forwards, rows and seconds are per example, with {processes} ({platform}) on a
machine that did other work at the time: do not compare seconds.

Everything below is made, and made again, by

```console
{command}
```
"""
SECTION = """
## {title}

```console
{run}
mdm compare {out} --baseline {baseline} --markdown --plot {plot}
```

{table}

![accuracy against rows](results-{task}.svg)
"""


def mdm(*arguments: str, show: bool = True) -> str:
    """The standard output of ``mdm ARGUMENTS``; ends with its message where it fails."""
    done = subprocess.run([sys.executable, "-m", "mdm", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    if show:
        print(done.stdout)
    return done.stdout


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
    samplers = asked.sampler or registry.names("sampler")
    sections, platform = [], ""
    for task, data in (("sudoku", asked.sudoku), ("countdown", asked.countdown)):
        out = asked.runs / task
        run = ["run", "--task", task, "--data", str(data), "--limit", str(asked.limit), "--out", str(out)]
        run += [word for sampler in samplers for word in ("--sampler", sampler)]
        run += ["--tokens-per-step", "1", "--tokens-per-step", "2", "--num-processes", str(asked.num_processes)]
        mdm(*run)
        plot = asked.page.with_name(f"results-{task}.svg")
        versus = ["compare", str(out), "--baseline", asked.baseline, "--markdown", "--plot", str(plot)]
        table = mdm(*versus, show=False).strip()
        # What the page shows holds on any machine: the files by name, the runs in the default folder.
        shown_out = RUNS / task
        shown = shlex.join(["mdm", *run]).replace(str(data), data.name).replace(str(out), str(shown_out))
        shown = shown.replace(" --sampler", " \\\n  --sampler", 1)
        sections.append(
            SECTION.format(
                title=f"{task.capitalize()}, first {asked.limit} of `{data.name}`", run=shown, out=shown_out,
                baseline=asked.baseline, plot=plot.name, table=table, task=task,
            )
        )  # fmt: skip
        platform = json.loads((out / "environment.json").read_text())["platform"]
    count = f"{asked.num_processes} process" + "es" * (asked.num_processes > 1)
    command = f"python docs/make_results.py --sudoku {asked.sudoku.name} --countdown {asked.countdown.name}"
    head = PAGE.format(
        limit=asked.limit, baseline=asked.baseline, processes=count, platform=platform, command=command
    )  # fmt: skip
    asked.page.write_text(head + "".join(sections), encoding="utf-8")
    print(f"written: {asked.page}")


if __name__ == "__main__":
    main()
