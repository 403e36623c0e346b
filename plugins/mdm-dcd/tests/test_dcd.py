"""What is committed is what the published rule says, with its left and right ends kept and moved."""

from __future__ import annotations

import mdm
import pytest
import torch
from mdm.errors import MdmError
from tiny_families import MASK, save

PROMPTS = [[3, 14, 15, 92, 65, 35], [8, 97, 93], [2, 38, 46, 26, 43, 38, 32, 79]]
LENGTH = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mdm.load_model(save(tmp_path_factory.mktemp("models") / "llada", "llada"), device="cpu", dtype="float32")


def changes_of(result):
    """What each step changed, fills behind an end token included."""
    steps = {}
    for line in result.trace:
        steps.setdefault(line["step"], {}).update(zip(line["positions"], line["tokens"], strict=True))
    return list(steps.values())


def definition(model, prompt, width, longest, algo, param, eos=None):
    """What each step changes; the window is [left, right), and an end token ends what it may reach."""
    left, end = len(prompt), len(prompt) + LENGTH
    right, canvas, out = min(left + width, left + (longest or 999)), prompt + [MASK] * LENGTH, []
    while MASK in canvas:
        log_p = model.score_logits(torch.tensor([canvas]))[0].log_softmax(-1)
        p = log_p.exp()
        entropy = -(p * log_p).sum(-1)
        p[:, MASK] = -1
        window = [i for i in range(left, right) if canvas[i] == MASK]
        key = {i: -float(entropy[i]) if algo == "entropythreshold" else float(p[i].max()) for i in window}
        best = sorted(window, key=lambda i: -key[i])
        chosen = best[: int(param)] if algo == "fixed" else [i for i in best if key[i] >= param] or best[:1]
        change = {i: int(p[i].argmax()) for i in chosen}
        ends = [i for i, token in change.items() if token == eos]
        if ends:
            end = min(end, *ends)
            change |= {i: eos for i in range(end + 1, len(canvas)) if canvas[i] == MASK and i not in change}
        canvas = [change.get(i, token) for i, token in enumerate(canvas)]
        out.append(change)
        while left < len(canvas) and canvas[left] != MASK:
            left += 1
        inside = sum(canvas[i] == MASK for i in range(left, right))
        right = min(right + width - inside, left + (longest or 999), end)
    return out


@pytest.mark.parametrize(
    ("width", "longest", "algo", "param"),
    [
        (6, None, "threshold", 0.3),
        (6, 8, "threshold", 0.3),
        (4, None, "threshold", 0.9),
        (5, 7, "fixed", 2),
        (6, None, "entropythreshold", -1.5),
    ],
)
@pytest.mark.parametrize("ends", [False, True])
def test_the_window_slides_as_published(model, width, longest, algo, param, ends):
    options = {
        "initial_window_length": width, "max_window_length": longest, "decode_algo": algo, "decode_param": param
    }  # fmt: skip
    [free, *_] = mdm.decode(model, PROMPTS, "dcd", options, cache="none", gen_length=LENGTH)
    eos = free.tokens[LENGTH // 2] if ends else None
    stop = {"stop_at_eos": True, "eos_token_id": eos} if ends else {}
    results = mdm.decode(model, PROMPTS, "dcd", options, cache="none", gen_length=LENGTH, **stop)
    for prompt, result in zip(PROMPTS, results, strict=True):
        expected = definition(model, prompt, width, longest, algo, param, eos)
        assert changes_of(result) == expected
        assert result.forwards == len(expected)


def test_each_option_changes_something(model):
    def decoded(**options):
        plain = {"initial_window_length": 6, "max_window_length": 8, "decode_param": 0.3}
        results = mdm.decode(model, PROMPTS, "dcd", plain | options, cache="none", gen_length=LENGTH)
        return [changes_of(result) for result in results]

    plain = decoded()
    for change in (
        {"initial_window_length": 4}, {"max_window_length": None}, {"decode_param": 0.6},
        {"decode_algo": "fixed", "decode_param": 2}, {"decode_algo": "entropythreshold", "decode_param": -1.0},
    ):  # fmt: skip
        assert decoded(**change) != plain, change


def test_a_window_over_all_is_the_threshold_of_the_whole_canvas(model):
    """Blocks play no part."""
    plain = mdm.decode(
        model, PROMPTS, "fastdllm-threshold", {"threshold": 0.3}, cache="none", gen_length=LENGTH, block_length=LENGTH
    )
    options = {"initial_window_length": 99, "decode_param": 0.3}
    mine = mdm.decode(model, PROMPTS, "dcd", options, cache="none", gen_length=LENGTH, block_length=4)
    assert [changes_of(r) for r in mine] == [changes_of(r) for r in plain]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"initial_window_length": 0}, "initial_window_length"),
        ({"decode_algo": "greedy"}, "decode_algo"),
        ({"decode_param": 1.5}, "from 0 to 1"),
        ({"decode_algo": "fixed"}, "whole number of tokens"),
        ({"decode_algo": "entropythreshold"}, "0 or less"),
    ],
)
def test_what_is_refused(model, options, line):
    with pytest.raises(MdmError, match=line):
        mdm.decode(model, PROMPTS, "dcd", options, gen_length=LENGTH)
