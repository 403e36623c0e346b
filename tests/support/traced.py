"""Decodings that nobody decoded: of a long text, and of pictures, for tests of the page that shows them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from mdm.runs import config
from mdm.runs.config import RunConfig

START = 6
"""Position of a picture's first token: behind the prompt."""
NASTY = "</script><img src=x onerror=\"document.title='owned'\">{{style}} cube"


def drawing(rows: int, columns: int, side: int) -> np.ndarray:
    """uint8 [rows·side, columns·side, 3]: a ball on a gradient, each cell a colour of its own on average."""
    y, x = np.mgrid[0 : rows * side, 0 : columns * side]
    ball = (y - rows * side * 0.55) ** 2 + (x - columns * side * 0.45) ** 2 < (rows * side * 0.3) ** 2
    sky = np.stack([60 + 120 * y / y.max(), 90 + 60 * x / x.max(), 200 - 90 * y / y.max()], -1)
    shade = np.stack([230 - 90 * x / x.max(), 60 + 90 * y / y.max(), np.full(y.shape, 50.0)], -1)
    noise = np.random.default_rng(0).normal(0, 6, sky.shape)
    return np.clip(np.where(ball[..., None], shade, sky) + noise, 0, 255).astype(np.uint8)


def flat(rows: int, columns: int, side: int) -> np.ndarray:
    """The same with one colour a cell, no two alike."""
    y, x = np.mgrid[0 : rows * side, 0 : columns * side] // side
    return np.stack([30 + 200 * y // rows, 30 + 200 * x // columns, 0 * x + 90], -1).astype(np.uint8)


def lines_of(row: int, cells: int, steps: int, candidates: int) -> list[dict]:
    """A full trace: half-way a token is masked again, which the next step decodes, and one is replaced."""
    rng = random.Random(row)
    order = [START + cell for cell in rng.sample(range(cells), cells)]
    bounds = [cells * step // steps for step in range(steps + 1)]
    lines: list[dict] = []

    def add(step: int, kind: str, positions: list[int], **more) -> None:
        entropy = [round(3 * rng.random() * (1 - step / steps), 5) for _ in positions]
        lines.append({
            "row": row, "step": step, "kind": kind, "positions": positions, "entropy": entropy,
            "tokens": [126_000 + position if kind != "edit" else 7 for position in positions],
            "confidence": [round(rng.random(), 5) for _ in positions],
            "candidates": 0, "forwards": 1, "rows": 1, **more,
        })  # fmt: skip

    for step in range(steps):
        positions, left = order[bounds[step] : bounds[step + 1]], order[bounds[step] :]
        others = [rng.sample(left, len(positions)) for _ in range(candidates - 1)]
        values = sorted((round(-3 * rng.random(), 5) for _ in range(candidates)), reverse=True)
        weighed = [
            {"positions": p, "J": j, "C": round(rng.random(), 5), "H": round(rng.random(), 5)}
            for p, j in zip([positions, *others], values, strict=True)
        ]
        add(step, "commit", positions, weighed=weighed if len(left) > len(positions) else [])
        if step == steps // 2:
            add(step, "edit", [order[0]])
            add(step, "remask", [order[1]])
        if step == steps // 2 + 1:
            add(step, "commit", [order[1]])
            add(step, "commit", [order[0]])
    return lines


def image_run(
    folder: Path, grid: tuple[int, int], steps: int, side: int, draw=drawing, examples: int = 1, candidates: int = 4
) -> Path:
    """A finished run's folder, as ``mdm run`` writes it."""
    from PIL import Image

    rows, columns = grid
    canvas = ["<|t2i|>", "a", " red", " cube", "</s>", "<|soi|>", *[None] * (rows * columns), "<|eoi|>"]
    (folder / "images").mkdir(parents=True)
    settings = RunConfig(task="equations", model=["tiny"], sampler=["info-gain"], trace="full")
    (folder / "config.yaml").write_text(config.to_yaml(settings))
    with (folder / "results.jsonl").open("w") as results, (folder / "trace.jsonl").open("w") as trace:
        for row in range(examples):
            picture = draw(rows, columns, side)
            Image.fromarray(np.roll(picture, row, -1)).save(folder / f"images/{row}.png")
            lines = lines_of(row, rows * columns, steps, candidates)
            paid = sum(e for line in lines if line["kind"] == "commit" for e in line["entropy"])
            result = {
                "id": f"red-{row}", "index": row, "repeat": 0, "row": row, "digest": str(row), "prompt": NASTY,
                "completion": "", "metrics": {}, "tokens": rows * columns, "cumulative_entropy": paid,
                "forwards": steps, "rows": steps * candidates, "seconds": 1.0,
                "canvas": canvas[:START] if row % 2 else canvas,  # as it was asked, or all of it
                "texts": {}, "image": f"images/{row}.png", "grid": [rows, columns],
            }  # fmt: skip
            results.write(json.dumps(result) + "\n")
            trace.writelines(json.dumps(line) + "\n" for line in lines)
    return folder


def large(positions: int, candidates: int) -> dict:
    """As ``data.load`` gives it: one token a step in blocks of 32, two variants."""
    rng = random.Random(0)
    words = ["the", " canvas", " is", " filled", " one", " token", " at", " a", " time", ",", " and", ".\n", " mask"]

    def decoding() -> dict:
        frames, block = [], 32
        for start in range(0, positions, block):
            left = list(range(start, min(positions, start + block)))
            rng.shuffle(left)
            while left:
                at = left.pop()
                others = rng.sample(left, min(len(left), candidates - 1))
                frames.append({
                    "s": len(frames), "k": "commit", "p": [at + 40], "t": [rng.choice(words)],
                    "e": [round(rng.expovariate(3), 4)], "c": [round(rng.random() ** 0.2, 4)],
                    "w": [[[p + 40], -rng.random(), rng.random(), rng.random()] for p in [at, *others]],
                })  # fmt: skip
        paid = sum(frame["e"][0] for frame in frames)
        prompt = [f" prompt{i}" for i in range(40)]
        return {
            "canvas": prompt + [None] * positions, "metrics": {"accuracy": 1.0}, "entropy": paid, "prompt": "long",
            "completion": "", "answer": None, "verdict": ["right", "right"],
            "forwards": positions, "rows": positions * candidates, "frames": frames,
        }  # fmt: skip

    return page_data("large", ["info-gain", "confidence"], [decoding(), decoding()])


def page_data(name: str, labels: list[str], decodings: list[dict]) -> dict:
    """One example as ``data.load`` gives it."""
    about = [{"settings": [("sampler", label)], "state": ""} for label in labels]
    sample = {"id": name, "reference": None, "variants": decodings}
    return {"title": name, "variants": labels, "about": about, "samples": [sample], "fault": None, "left_out": 0}
