"""The check's report as one page of Markdown, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mdm_bench.gpu.parts import SPEED
from mdm_bench.gpu.targets import judged

Report = dict[str, Any]
WIDTH = 100


def page(report: Report) -> str:
    """All that a reader wants to know first; the rest is in the JSON."""
    parts: dict[str, Report] = report["parts"]
    lines = [*_head(report), "", *_targets(report)]
    for name, part in parts.items():
        if name.startswith(SPEED):
            lines += ["", *_speed(name.removeprefix(SPEED), part)]
    lines += ["", *LEGEND]
    lines += ["", *_parity(parts.get("parity", {})), "", *_kernels(parts.get("kernels", {}))]
    missing = list(_missing(parts))
    lines += ["", "## What is missing", *(missing or ["Nothing."])]
    return "\n".join(line[: 2 * WIDTH].rstrip() for line in lines) + "\n"


def _head(report: Report) -> Iterator[str]:
    cells = report["parts"].get("device", {}).get("cells", {})
    device, versions, driver, copy = (cells.get(name, {}) for name in ("device", "versions", "driver", "copy"))
    yield f"# mdm on {device.get('name', report['device'])}"
    yield ""
    names = {"mdm-core": "mdm", "torch": "torch", "cuda": "CUDA", "triton": "Triton", "transformers": "transformers",
             "python": "Python", "commit": "commit"}  # fmt: skip
    said = [f"{shown} {versions[name]}" for name, shown in names.items() if versions.get(name)]
    if driver.get("driver_version"):
        said.append(f"driver {driver['driver_version']}")
    yield from _wrapped(said)
    memory = []
    if "memory_bytes" in device:
        memory.append(f"memory {device['memory_bytes'] / 1e9:.1f} GB")
    if copy.get("bytes_per_second"):
        memory.append(f"copies at {copy['bytes_per_second'] / 1e9:,.0f} GB/s (read and written)")
    if driver.get("clocks.max.sm"):
        memory.append(f"clocks up to {driver['clocks.max.sm']}, {driver.get('power.limit', '?')}")
    yield from _wrapped(memory)
    yield f"{report['started']}, {report['seconds']:.0f} s" + (", interrupted" if report.get("interrupted") else "")


def _wrapped(words: Sequence[str]) -> Iterator[str]:
    line = ""
    for word in words:
        if line and len(line) + len(word) + 2 > WIDTH:
            yield line + ","
            line = ""
        line += (", " if line else "") + word
    if line:
        yield line


def _targets(report: Report) -> list[str]:
    rows = []
    for one in judged(report):
        goal = f" (goal {one['goal']:g})" if one["goal"] else ""
        value = "-" if one["value"] is None else f"{one['value']:.3g}" if one["value"] < 10 else f"{one['value']:.1f}"
        rows.append([one["target"], one["wanted"] + goal, value, one["unit"], one["verdict"]])
    note = "On one H100 80GB, LLaDA-8B's shape in bfloat16, 256 + 256 tokens, blocks of 32."
    return ["## Targets", note, "", *table(["target", "wanted", "found", "unit", "verdict"], rows, left=(0, 3, 4))]


def _number(format: str, scale: float = 1.0) -> Callable[[Any], str]:
    return lambda value: "" if value is None else format.format(value * scale)


COLUMNS: dict[str, Callable[[Report], str]] = {
    "tok/s": lambda cell: _number("{:.1f}")(cell.get("tokens_per_second")),
    "whole": lambda cell: _number("{:.0f}")(cell.get("whole_tokens_per_second")),
    "ms/step": lambda cell: _number("{:.2f}")(cell.get("ms_per_step")),
    "device": lambda cell: _number("{:.2f}")(cell.get("device_ms")),
    "launch": lambda cell: _number("{:.0f}")(cell.get("launches")),
    "GB": lambda cell: _number("{:.1f}", 1e-9)(cell.get("peak_bytes")),
    "first": lambda cell: _number("{:.1f}")(cell.get("first_seconds")),
    "graphs": lambda cell: f"{cell.get('captures', 0)}/{cell.get('replays', 0)}",
    "MB": lambda cell: _number("{:.0f}", 1e-6)(cell.get("graph_bytes")),
}
"""Column of a speed table -> how a cell's figure is written."""


def _speed(shape: str, part: Report) -> Iterator[str]:
    cells: Mapping[str, Report] = part.get("cells", {})
    rows = []
    for name, cell in cells.items():
        if name.endswith("/ device") or "tokens_per_second" not in cell:
            continue
        both = cell | {k: v for k, v in cells.get(f"{name} / device", {}).items() if k != "error"}
        rows.append([name.replace("info-gain", "N 8"), *(write(both) for write in COLUMNS.values())])
    weights = f", {part['weight_bytes'] / 1e9:.1f} GB of weights in {part['dtype']}" if "weight_bytes" in part else ""
    yield f"## {shape}{weights}"
    if not rows:
        yield "No cell was measured."
        return
    yield from table(["cache, batch, sampler", *COLUMNS], rows)
    if part.get("starts", 1) > 1:
        yield f"Begun {part['starts']} times: first decodes after the first start may have found what was compiled."
    again = [f"{name}: {cell['captures_later']}" for name, cell in cells.items() if cell.get("captures_later")]
    if again:
        yield f"Graphs captured in later decodes: {', '.join(again)}."


LEGEND = (
    "N 8: Info-Gain with 8 candidates. tok/s and ms/step: a block of the mean cost, median of its rounds, all rows",
    "of the batch; whole: a decode of 256 + 256 tokens. device: what the device works in a step (ms); launch: the",
    "host's launches a step; GB: peak memory; first: seconds of the first such decode of its process, with nothing",
    "compiled before; graphs: captured in that decode / replayed in all; MB: of all graphs of the model so far.",
)


def _parity(part: Report) -> Iterator[str]:
    cells: Mapping[str, Report] = part.get("cells", {})
    same = sum(len(cell.get("same", ())) for cell in cells.values())
    differs = [(name, mode, at) for name, cell in cells.items() for mode, at in cell.get("differs", {}).items()]
    failed = [(name, mode, why) for name, cell in cells.items() for mode, why in cell.get("failed", {}).items()]
    refused = [name for name, cell in cells.items() if "refused" in cell]
    total = same + len(differs) + len(failed)
    yield "## Against the CPU, in float32"
    left = f" Not for such a model: {', '.join(refused)}." if refused else ""
    replays = [cell["replays"] for cell in cells.values() if "replays" in cell]
    replayed = f" {sum(replays)} forwards were replays." if replays else ""
    yield f"{same} of {total} decodes commit the CPU's tokens in its order.{replayed}{left}"
    for name, mode, at in differs:
        yield f"- {name}, {mode}: differs at step {at['step']} of row {at['row']}"
    yield from _by_reason([(f"{name}, {mode}", why) for name, mode, why in failed], "")


def _by_reason(lines: Sequence[tuple[str, str]], before: str) -> Iterator[str]:
    """A line for each reason, with all that it is the reason of."""
    names: dict[str, list[str]] = {}
    for name, why in lines:
        names.setdefault(why, []).append(name)
    for why, those in names.items():
        yield f"- {before}{why}: {'; '.join(those) if any(',' in name for name in those) else ', '.join(those)}"


def _kernels(part: Report) -> Iterator[str]:
    cells: Mapping[str, Report] = part.get("cells", {})
    judged = {name: cell for name, cell in cells.items() if "right" in cell}
    yield "## Kernels"
    yield f"{sum(cell['right'] for cell in judged.values())} of {len(judged)} are right against float64."
    for name, cell in judged.items():
        if not cell["right"]:
            yield f"- {name}: {', '.join(f'{k} {v:.2g}' for k, v in cell.items() if k != 'right')}"
    rows = [
        [name.removeprefix("time "), f"{cell['ms']:.3f}", _number("{:.3f}")(cell["device_ms"]),
         f"{cell['share_of_copy']:.0%}"]
        for name, cell in cells.items() if "share_of_copy" in cell
    ]  # fmt: skip
    if rows:
        yield ""
        yield from table(["the pass at V 126464", "ms called", "ms in a graph", "of the copy's speed"], rows)


def _missing(parts: Mapping[str, Report]) -> Iterator[str]:
    """A line for what failed or was not reached."""
    for name, part in parts.items():
        cells: Mapping[str, Report] = part.get("cells", {})
        if "error" in part:
            yield f"- {name}: {part['error']}"
        whys = [(cell, found.get("error", found.get("why"))) for cell, found in cells.items()]
        yield from _by_reason([(cell, why) for cell, why in whys if why], f"{name}: ")
        left = [cell for cell, found in cells.items() if "not_reached" in found]
        if left:
            yield f"- {name}: {len(left)} of {len(cells)} cells were not reached: {', '.join(left)}"
        elif part["state"] in ("not reached", "interrupted") and "error" not in part:
            yield f"- {name}: {part['state']}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """A Markdown table, aligned for the eye."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        return f"| {' | '.join(cells)} |"

    rule = [("-" * w) if i in left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return [line(head), line(rule), *map(line, rows)]
