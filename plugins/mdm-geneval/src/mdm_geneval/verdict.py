"""Whether a picture shows what its prompt asks for, by the rules of GenEval (Ghosh et al. 2023, arXiv:2310.11513).

Scores and boxes are float32, as a detector gives them, and so are the thresholds that they are compared with: a score
of 0.3 does not pass a threshold of 0.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mdm.data import validate
from mdm.errors import MdmError
from mdm.protocols.options import NoOptions, check_options
from pydantic import Field

from mdm_geneval.metadata import CLASSES, COLORS, Include, Metadata

NO_RELATION = 1e-3
"""Pixels: what is nearer than this in both directions lies neither left nor right, above nor below."""
SIDE = 0.5
"""Share of the distance that a direction must account for, which is passed from 30 degrees on."""


class Rules(NoOptions):
    """Which detections count, and when something lies beside something else."""

    threshold: float = Field(0.3, ge=0, le=1, description="score that a detection must exceed")
    counting_threshold: float = Field(0.9, ge=0, le=1, description="the same for prompts that count")
    max_objects: int = Field(16, ge=1, description="objects of one class that are looked at, the surest first")
    max_overlap: float = Field(
        1.0, gt=0, le=1, description="drop an object that overlaps a surer one of its class so much; 1: drop none"
    )
    position_threshold: float = Field(
        0.1, ge=0, le=1, description="offset to ignore in positions, as a share of both objects' sizes"
    )


@dataclass(frozen=True)
class Detected:
    """An object that was detected."""

    index: int
    """among the detections of its class, in the detector's order"""
    box: np.ndarray
    """x0, y0, x1, y1 in pixels and the score, float32 ``[5]``"""


ColorsOf = Callable[[str, Sequence[Detected]], Sequence[str]]
"""From a class and some objects of it to the colour of each."""


def verdict(
    metadata: Mapping[str, Any],
    detections: Iterable[Sequence[Any]],
    colors: Iterable[Sequence[Any]] = (),
    **options: float,
) -> dict[str, Any]:
    """Judge a picture by what was detected in it.

    Args:
        metadata: a line of GenEval's file.
        detections: ``[class, x0, y0, x1, y1, score]`` in the order of the detector.
        colors: ``[class, index, colour]`` of the detections, by their index among those of the class; one that is not
            named is black.
        options: of ``Rules``.

    Returns:
        ``correct``; ``reason``, a line for each thing that is wrong; ``kept``, class -> the boxes that counted, with
        their scores; ``colors_asked``, the class, boxes and colours of all objects whose colour mattered.

    Raises:
        MdmError: one of the arguments is not of this form.
    """
    asked: list[list[Any]] = []
    table = _color_table(colors)

    def colors_of(name: str, objects: Sequence[Detected]) -> list[str]:
        seen = [table.get((name, thing.index), "black") for thing in objects]
        asked.append([name, [thing.box.tolist() for thing in objects], seen])
        return seen

    rules = check_options("verdict", Rules, options)
    assert isinstance(rules, Rules)
    wanted = validate(metadata, Metadata, "metadata")
    kept = objects_that_count(rules, wanted.tag, detections)
    reasons = faults(rules, wanted, kept, colors_of)
    boxes = {name: [thing.box.tolist() for thing in objects] for name, objects in kept.items()}
    return {"correct": not reasons, "reason": "\n".join(reasons), "kept": boxes, "colors_asked": asked}


def objects_that_count(rules: Rules, tag: str, detections: Iterable[Sequence[Any]]) -> dict[str, list[Detected]]:
    """The objects of each class that count for a prompt of this tag, the surest first, of equals the later first."""
    threshold = np.float32(rules.counting_threshold if tag == "counting" else rules.threshold)
    every: dict[str, list[Detected]] = {}
    for name, box in map(_detection, detections):
        objects = every.setdefault(name, [])
        objects.append(Detected(len(objects), box))
    kept: dict[str, list[Detected]] = {}
    for name, objects in every.items():
        sure = [thing for thing in reversed(objects) if thing.box[4] > threshold]
        for thing in sorted(sure, key=lambda thing: -thing.box[4])[: rules.max_objects]:
            surer = kept.setdefault(name, [])
            if rules.max_overlap == 1 or all(_overlap(thing.box, other.box) < rules.max_overlap for other in surer):
                surer.append(thing)
    return kept


def faults(rules: Rules, wanted: Metadata, kept: Mapping[str, Sequence[Detected]], colors_of: ColorsOf) -> list[str]:
    """A line for each thing in which a picture differs from what is wanted; none where it is right."""
    reasons: list[str] = []
    matched: list[Sequence[Detected] | None] = []
    for entry in wanted.include:
        objects = kept.get(entry.name, ())[: entry.count]
        fault = _wrong_objects(entry, objects, colors_of)
        if fault is None and entry.position is not None:
            relation, index = entry.position
            targets = matched[index]
            if targets is None:  # the objects are right all the same, and may be the targets of a later entry
                reasons.append(f"no target for {entry.name} to be {relation}")
            else:
                fault = _wrong_position(entry.name, relation, objects, targets, rules.position_threshold)
        matched.append(None if fault else objects)
        reasons += [fault] if fault else []
    for limit in wanted.exclude:
        count = len(kept.get(limit.name, ()))
        if count >= limit.count:
            reasons.append(f"expected {limit.name}<{limit.count}, found {count}")
    return reasons


def _wrong_objects(entry: Include, objects: Sequence[Detected], colors_of: ColorsOf) -> str | None:
    """What is wrong with the number or the colours of ``objects``."""
    if len(objects) < entry.count:
        return f"expected {entry.name}>={entry.count}, found {len(objects)}"
    if entry.color is None:
        return None
    seen = colors_of(entry.name, objects)
    right = seen.count(entry.color)
    if right >= entry.count:
        return None
    every = ", ".join(f"{seen.count(color)} {color}" for color in COLORS if color in seen)
    return f"expected {entry.color} {entry.name}>={entry.count}, found {right} {entry.color}; and {every}"


def _wrong_position(
    name: str, relation: str, objects: Sequence[Detected], targets: Sequence[Detected], margin: float
) -> str | None:
    """What is wrong with where ``objects`` lie; each of them must have the relation to each target."""
    for thing in objects:
        for target in targets:
            relations = relations_of(thing.box, target.box, margin)
            if relation not in relations:
                return f"expected {name} {relation} target, found {' and '.join(relations)} target"
    return None


def relations_of(box: np.ndarray, other: np.ndarray, margin: float) -> list[str]:
    """How one box lies to another, in at most two words; ``margin`` is a share of both boxes' sizes."""
    corners, others = (np.asarray(of[:4], np.float32).reshape(2, 2) for of in (box, other))
    offset = corners.mean(axis=0) - others.mean(axis=0)
    sizes = np.abs(corners[1] - corners[0]) + np.abs(others[1] - others[0])
    beyond = np.maximum(np.abs(offset) - np.float32(margin) * sizes, 0) * np.sign(offset)
    if np.all(np.abs(beyond) < NO_RELATION):
        return []
    # The distance is that of the centres: the margin takes from what a direction accounts for.
    x, y = beyond / np.linalg.norm(offset)
    sides = {"left of": x < -SIDE, "right of": x > SIDE, "above": y < -SIDE, "below": y > SIDE}
    return [relation for relation, holds in sides.items() if holds]


def _overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes whose last pixels belong to them."""

    def area(x0: float, y0: float, x1: float, y1: float) -> float:
        return max(x1 - x0 + 1, 0) * max(y1 - y0 + 1, 0)

    one, two = box[:4].tolist(), other[:4].tolist()
    common = area(*map(max, one[:2], two[:2]), *map(min, one[2:], two[2:]))
    union = area(*one) + area(*two) - common
    return common / union if union else 0.0


def _detection(row: Sequence[Any]) -> tuple[str, np.ndarray]:
    try:
        name, *numbers = row
        box = np.asarray(numbers, np.float32)
    except (TypeError, ValueError):
        name, box = "", np.empty(0, np.float32)
    if name not in CLASSES or box.shape != (5,) or not np.isfinite(box).all():
        raise MdmError(f"detection {row!r}: expected [class, x0, y0, x1, y1, score] with one of GenEval's classes")
    return name, box


def _color_table(colors: Iterable[Sequence[Any]]) -> dict[tuple[str, int], str]:
    table = {}
    for row in colors:
        if isinstance(row, str) or len(row) != 3 or row[0] not in CLASSES or row[2] not in COLORS:
            raise MdmError(f"colour {row!r}: expected [class, index, colour] with one of GenEval's classes and colours")
        table[row[0], row[1]] = row[2]
    return table
