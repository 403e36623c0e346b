"""Verdicts and figures are those of GenEval's published scripts; what is not asked for changes none."""

from __future__ import annotations

import random
import re
from statistics import fmean

import pytest
from goldens import ABSENT, facts
from hypothesis import given, strategies as st
from mdm.errors import MdmError
from mdm_geneval import summary, verdict
from mdm_geneval.metadata import CLASSES, COLORS, TAGS

GRADING = facts("images/geneval", "grading")
SUMMARY = facts("images/geneval", "summary")
needs_goldens = pytest.mark.skipif(GRADING is None, reason=ABSENT)
DOG = {"tag": "single_object", "prompt": "a photo of a dog", "include": [{"class": "dog", "count": 1}]}
LEFT = {
    "tag": "position",
    "prompt": "a photo of a dog left of a cat",
    "include": [{"class": "cat", "count": 1}, {"class": "dog", "count": 1, "position": ["left of", 0]}],
}


def sides(reason: str) -> str:
    """A reason whose relations stand in one order: the published one is a set's."""
    return re.sub(
        r"found (.+) and (.+) target", lambda found: "found {} and {} target".format(*sorted(found.groups())), reason
    )


@needs_goldens
@pytest.mark.parametrize("case", [pytest.param(c, id=c["name"]) for c in (GRADING or {"cases": []})["cases"]])
def test_golden_verdict(case):
    got = verdict(case["metadata"], case["detections"], case["colors"], **case["options"])
    expected = case["expected"]
    assert got["correct"] == expected["correct"]
    assert sides(got["reason"]) == sides(expected["reason"])
    if not case["score_ties_beyond_max_objects"]:  # which of equal scores are the first 16 is numpy's affair
        assert got["kept"] == expected["kept"]
        assert got["colors_asked"] == expected["colors_asked"]


@needs_goldens
def test_the_names_are_those_of_the_published_files():
    assert list(CLASSES) == GRADING["classnames"] and list(COLORS) == GRADING["colors"]


@needs_goldens
def test_golden_summary():
    got = summary((row["tag"], row["prompt"], row["correct"]) for row in SUMMARY["rows"])
    printed = SUMMARY["printed"]
    for tag in TAGS:
        assert f"{got[tag]:.2%}" in next(line for line in printed.splitlines() if line.startswith(tag))
    assert f"Overall score (avg. over tasks): {got['overall']:.5f}" in printed
    assert f"% correct images: {got['images']:.2%}" in printed
    assert f"% correct prompts: {got['prompts']:.2%}" in printed


def test_a_summary_without_all_tags_has_no_overall_score():
    rows = [("colors", "a", True), ("colors", "a", False), ("counting", "b", False)]
    assert summary(rows) == {"counting": 0, "colors": 0.5, "images": fmean([1, 0, 0]), "prompts": 0.5}
    assert summary([]) == {}


numbers = st.integers(0, 512)
boxes = st.tuples(
    st.sampled_from(["dog", "cat", "bench"]), numbers, numbers, numbers, numbers, st.floats(0, 1, width=32)
)
detections = st.lists(
    boxes.map(lambda d: [d[0], min(d[1], d[3]), min(d[2], d[4]), max(d[1], d[3]), max(d[2], d[4]), d[5]]), max_size=8
)


@given(detections, st.floats(0, 0.3), st.integers(0, 8))
def test_what_is_not_sure_enough_changes_nothing(found, score, place):
    before = verdict(LEFT, found)
    assert verdict(LEFT, [*found[:place], ["dog", 1, 2, 30, 40, score], *found[place:]]) == before


@given(detections)
def test_a_mirrored_picture_has_mirrored_positions(found):
    mirrored = [[name, 512 - x1, y0, 512 - x0, y1, score] for name, x0, y0, x1, y1, score in found]
    right = {**LEFT, "include": [LEFT["include"][0], {**LEFT["include"][1], "position": ["right of", 0]}]}
    assert verdict(LEFT, found)["correct"] == verdict(right, mirrored)["correct"]


@given(detections, st.randoms(use_true_random=False))
def test_the_order_of_different_scores_does_not_matter(found, draw):
    found = [[*row[:5], 0.31 + 0.05 * i] for i, row in enumerate(found)]
    shuffled = random.Random(draw.random()).sample(found, len(found))
    assert verdict(LEFT, found)["kept"].get("dog") == verdict(LEFT, shuffled)["kept"].get("dog")


@given(detections)
def test_a_looser_threshold_keeps_more(found):
    strict, loose = (verdict(DOG, found, threshold=t)["kept"] for t in (0.5, 0.2))
    assert all(box in loose[name] for name, kept in strict.items() for box in kept)


@pytest.mark.parametrize(
    ("metadata", "found", "colors", "options", "said"),
    [
        (DOG, [], [], {"treshold": 0.5}, "option verdict.treshold: there is no such name. Did you mean 'threshold'?"),
        (DOG, [], [], {"threshold": 1.5}, "option verdict.threshold=1.5"),
        (DOG, [["dgo", 0, 0, 1, 1, 0.5]], [], {}, r"detection \['dgo'"),
        (DOG, [["dog", 0, 0, 1, 1]], [], {}, r"detection \['dog', 0, 0, 1, 1\]"),
        (DOG, [["dog", 0, 0, 1, 1, float("nan")]], [], {}, "detection"),
        (DOG, [7], [], {}, "detection 7"),
        (DOG, [], [["dog", 0, "mauve"]], {}, r"colour \['dog', 0, 'mauve'\]"),
        (DOG, [], ["red"], {}, "colour 'red'"),
        ({**DOG, "tag": "singel"}, [], [], {}, "metadata: tag=singel"),
        ({**DOG, "include": [{"class": "dgo", "count": 1}]}, [], [], {}, "Did you mean 'dog'?"),
        ({**DOG, "include": [{"class": "dog", "count": 0}]}, [], [], {}, "metadata: include.0.count=0"),
        (
            {**DOG, "include": [{"class": "dog", "count": 1, "colour": "red"}]},
            [],
            [],
            {},
            "metadata: include.0.colour=red",
        ),
        ({**DOG, "include": []}, [], [], {}, "it asks for nothing"),
        ({**LEFT, "include": LEFT["include"][::-1]}, [], [], {}, "no earlier entry"),
    ],
)
def test_bad_input_is_one_line(metadata, found, colors, options, said):
    with pytest.raises(MdmError, match=said) as error:
        verdict(metadata, found, colors, **options)
    assert "\n" not in str(error.value)
