"""Makes images/decode.svg: one equation with holes, filled by two samplers on ``tiny``, step by step, as they did it.

    python docs/make_decode_picture.py

writes it anew (to another file if one is named); tests/test_pictures.py fails where it is stale. The picture moves by
CSS alone, so it does inside an ``<img>``; where nothing moves, one sees the end.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import mdm
from mdm.cli.live import HEAT, CanvasView

PICTURE = Path(__file__).parent / "images" / "decode.svg"
PUZZLE = "7_*6_=____"
SAMPLERS = {"confidence": "commits what is surest", "info-gain": "looks one step ahead of each candidate"}
STEP, HOLD = 1.8, 5.0
"""Seconds of a step, and of the end before it begins again."""
COMMIT = 0.62
"""Share of a step after which its token is there; before, its candidates are shown."""
WIDTH, CELL, LEFT, LANE, TOP = 880, 50, 28, 124, 66
BAR, FULL = 300, 10.0
"""Width of the bar of cumulative entropy, and the nats that fill it."""

STYLE = """
text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: var(--ink); }
.title { font-size: 17px; font-weight: 600; } .small { font-size: 13px; fill: var(--dim); }
.token { font-size: 25px; text-anchor: middle; } .middle { text-anchor: middle; } .end { text-anchor: end; }
.mask { fill: var(--mask); } .given { fill: none; } .card { fill: var(--card); stroke: var(--line); }
.ring { fill: none; stroke: var(--blue); stroke-width: 1.5; stroke-dasharray: 4 3; }
.chosen { stroke-width: 3; stroke-dasharray: none; } .j { font-size: 12.5px; fill: var(--blue); text-anchor: middle; }
.best { font-weight: 700; } .right { fill: var(--right); } .wrong { fill: var(--wrong); }
.verdict { font-size: 17px; font-weight: 600; }
:root { --ink: #1f2328; --dim: #59636e; --mask: #d5dae1; --card: #ffffff; --line: #d0d7de; --blue: #0969da;
  --right: #1a7f37; --wrong: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --dim: #9198a1; --mask: #3b434d; --card: #0d1117; --line: #3d444d; --blue: #58a6ff;
    --right: #3fb950; --wrong: #f85149; }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; } }
"""


class Film:
    """Elements that appear at a moment and go at another, in a loop; at rest one sees what stands at its end."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._frames: list[str] = []

    def shown(self, begin: float, end: float | None = None) -> str:
        """Attributes of an element that is seen from ``begin`` to ``end`` (seconds), or to the end of the loop."""
        name = f"s{len(self._frames)}"
        at, gone = 100 * begin / self._seconds, 100 if end is None else 100 * end / self._seconds
        after = "" if end is None else f" {gone:.2f}%, 100% {{ opacity: 0; }}"
        self._frames.append(
            f"@keyframes {name} {{ 0%, {max(0.0, at - 0.01):.2f}% {{ opacity: 0; }}"
            f" {at:.2f}%, {max(at, gone - 0.01):.2f}% {{ opacity: 1; }}{after} }}"
        )
        return f'style="animation: {name} {self._seconds:g}s infinite; opacity: {int(end is None)}"'

    def style(self) -> str:
        return STYLE + "\n".join(self._frames)


def lane(film: Film, top: int, name: str, result: mdm.Result, texts: Sequence[str]) -> Iterator[str]:
    """What one sampler did: its cells with their candidates, and the entropy that it paid.

    ``texts`` is what each token of the trace says, in the order of the trace.
    """
    yield f'<text x="{LEFT}" y="{top}" class="title">{name}</text>'
    yield f'<text x="{LEFT + 11 * len(name) + 8}" y="{top}" class="small">{SAMPLERS[name]}</text>'
    cells = top + 16
    for place, given in enumerate(PUZZLE):
        x = LEFT + place * CELL
        if given == "_":
            yield f'<rect x="{x + 3}" y="{cells}" width="{CELL - 6}" height="46" rx="6" class="mask"/>'
        else:
            yield f'<text x="{x + CELL // 2}" y="{cells + 32}" class="token">{"×" if given == "*" else given}</text>'

    bar, paid, filled = LEFT + len(PUZZLE) * CELL + 28, 0.0, list(PUZZLE)
    yield f'<rect x="{bar}" y="{cells + 12}" width="{BAR}" height="20" rx="4" class="mask" opacity=".55"/>'
    assert result.trace is not None
    for line, text in zip(result.trace, texts, strict=True):
        [place], [entropy] = line["positions"], line["entropy"]
        begin, last = line["step"] * STEP, line is result.trace[-1]
        commit = begin + COMMIT * STEP
        for candidate in line.get("weighed", ()):
            [there], chosen = candidate["positions"], candidate["positions"] == line["positions"]
            x, seen = LEFT + there * CELL, film.shown(begin + 0.15 * STEP, begin + 0.95 * STEP)
            yield (
                f'<g {seen}><rect x="{x + 1.5}" y="{cells - 1.5}" width="{CELL - 3}" height="49" rx="7"'
                f' class="ring{" chosen" if chosen else ""}"/><text x="{x + CELL // 2}" y="{cells + 66}"'
                f' class="j{" best" if chosen else ""}">{minus(candidate["J"])}</text></g>'
            )
        heat, x = HEAT[min(len(HEAT) - 1, int(entropy / CanvasView.WARM))], LEFT + place * CELL
        cell = f'<rect x="{x + 3}" y="{cells}" width="{CELL - 6}" height="46" rx="6"'
        yield (
            f'<g {film.shown(commit)}>{cell} class="card"/>{cell} fill="{heat}" fill-opacity=".3" stroke="{heat}"/>'
            f'<text x="{x + CELL // 2}" y="{cells + 32}" class="token">{escape(text)}</text></g>'
        )
        yield (
            f'<rect x="{bar + BAR * paid / FULL:.1f}" y="{cells + 12}" width="{BAR * entropy / FULL:.1f}" height="20"'
            f' fill="{heat}" stroke="var(--card)" {film.shown(commit)}/>'
        )
        paid += entropy
        filled[place] = text
        until = None if last else commit + STEP
        yield (
            f'<text x="{bar}" y="{cells + 52}" class="small" {film.shown(commit, until)}>'
            f"step {line['step'] + 1}: +{entropy:.2f} nats, {paid:.2f} in all</text>"
        )
    left, right, product = ("".join(filled).replace("=", "*")).split("*")
    is_right = int(left) * int(right) == int(product)
    said = f"✓ {left} × {right} = {product}" if is_right else f"✗ {left} × {right} is {int(left) * int(right)}"
    yield (
        f'<text x="{bar}" y="{cells + 78}" class="verdict {"right" if is_right else "wrong"}"'
        f" {film.shown(commit + 0.3 * STEP)}>{said}</text>"
    )


def minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def svg() -> str:
    model = mdm.load_model("tiny", device="cpu")
    prompt = PUZZLE.replace("_", "[MASK]")
    results = {name: mdm.decode(model, [prompt], name, gen_length=0, trace="full", seed=0)[0] for name in SAMPLERS}
    steps = max(result.forwards for result in results.values())
    film, body = Film(steps * STEP + HOLD), []
    for index, (name, result) in enumerate(results.items()):
        texts = [model.tokenizer.decode(line["tokens"]) for line in result.trace or ()]
        body += lane(film, TOP + index * LANE, name, result, texts)
    height = TOP + len(results) * LANE + 14
    bar = LEFT + len(PUZZLE) * CELL + 28
    label = f"{PUZZLE} filled by " + " and by ".join(results)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">\n'
        f"<style>{film.style()}</style>\n"
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="10" class="card"/>\n'
        f'<text x="{LEFT}" y="28" class="small">same model, same masks, two samplers</text>\n'
        f'<text x="{bar}" y="28" class="small">cumulative entropy</text>\n'
        f'<text x="{LEFT}" y="{height - 14}" class="small">outlined: candidates, each with its J (information gain'
        " − cost, up to a constant); the largest is committed</text>\n" + "\n".join(body) + "\n</svg>\n"
    )


if __name__ == "__main__":
    Path(*sys.argv[1:2] or [PICTURE]).write_text(svg(), encoding="utf-8")
