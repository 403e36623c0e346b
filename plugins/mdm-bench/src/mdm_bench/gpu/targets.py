"""What a card is to reach, and what it did. The card is one H100 80GB, the shape LLaDA-8B's, 256 + 256 tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """``value`` gives the figure of a report, None where it was not reached."""

    name: str
    wanted: str
    value: Callable[[Report], float | None]
    met: Callable[[float], bool]
    unit: str
    goal: float | None = None
    """what would be better still"""


def _cell(report: Report, part: str, name: str) -> Report:
    cell: Report = report.get("parts", {}).get(part, {}).get("cells", {}).get(name, {})
    return cell


def _speed(cell: str) -> Callable[[Report], float | None]:
    def value(report: Report) -> float | None:
        found = _cell(report, "speed:llada-8b", cell)
        whole: float | None = found.get("whole_tokens_per_second", found.get("tokens_per_second"))
        return whole

    return value


def _first(cell: str) -> Callable[[Report], float | None]:
    return lambda report: _cell(report, "speed:llada-8b", cell).get("first_seconds")


def _against_eager(way: str) -> Callable[[Report], float | None]:
    def value(report: Report) -> float | None:
        speed, eager = _speed(f"none b1 info-gain {way}")(report), _speed("none b1 info-gain eager")(report)
        return None if speed is None or not eager else speed / eager

    return value


def share_the_same(report: Report) -> float | None:
    """Percent of the decodes of ``parity`` that are the CPU's; None before there is one."""
    cells = report.get("parts", {}).get("parity", {}).get("cells", {}).values()
    same = sum(len(cell.get("same", ())) for cell in cells)
    other = sum(len(cell.get("differs", ())) + len(cell.get("failed", ())) for cell in cells)
    return 100 * same / (same + other) if same + other else None


def _at_least(limit: float) -> Callable[[float], bool]:
    return lambda value: value >= limit


def _at_most(limit: float) -> Callable[[float], bool]:
    return lambda value: value <= limit


TARGETS = (
    Target("dual, N 8, batch 1, graphs", ">= 75", _speed("dual b1 info-gain graphs"), _at_least(75), "tokens/s"),
    Target("dual, N 8, batch 1, compiled", ">= 120", _speed("dual b1 info-gain compiled"), _at_least(120), "tokens/s",
           135),
    Target("prefix, N 8, batch 1, compiled", ">= 60", _speed("prefix b1 info-gain compiled"), _at_least(60),
           "tokens/s"),
    Target("none, N 8, batch 1, graphs / eager", ">= 1", _against_eager("graphs"), _at_least(0.99), "times"),
    Target("none, N 8, batch 1, compiled / eager", ">= 1", _against_eager("compiled"), _at_least(0.99), "times"),
    Target("dual, N 8, batch 16, compiled", ">= 160", _speed("dual b16 info-gain compiled"), _at_least(160),
           "tokens/s", 200),
    Target("first decode, graphs", "<= 3", _first("dual b1 info-gain graphs"), _at_most(3), "s"),
    Target("first decode, compiled", "<= 20", _first("dual b1 info-gain compiled"), _at_most(20), "s"),
    Target("decodes that are the CPU's", "100", share_the_same, _at_least(100), "%"),
)  # fmt: skip


def judged(report: Report) -> list[Report]:
    """Each target with its figure, and "met", "not met" or "not reached"."""
    found = []
    for target in TARGETS:
        value = target.value(report)
        verdict = "not reached" if value is None else "met" if target.met(value) else "not met"
        row = {"target": target.name, "wanted": target.wanted, "goal": target.goal, "unit": target.unit}
        found.append(row | {"value": value, "verdict": verdict})
    return found
