"""Numbers that are not finite end in one line that says where they arise, whatever the sampler; healthy rows go on."""

from __future__ import annotations

import copy
import json
from itertools import product

import mdm
import pytest
import torch
from mdm import registry
from mdm.errors import PromptError
from mdm.runs import run as runs
from mdm.runs.config import RunConfig, build
from mdm_testing.toy import EOS, MASK, toy_model

NAN, INF = float("nan"), float("inf")
SAMPLERS = registry.names("sampler")
CACHES = ("none", "prefix", "dual")


class Puts:
    """A logits processor that puts a number at some of the tokens of some rows."""

    def __init__(self, value, where):
        self.value, self.where = value, where

    def __call__(self, ids, logits):
        logits = logits.clone()
        if self.where == "token":
            logits[:, 7] = self.value
        elif self.where == "two tokens":
            logits[:, [3, 200]] = self.value
        elif self.where == "position":
            logits[0] = self.value
        elif self.where == "all":
            logits[:] = self.value
        elif self.where == "all but the mask":
            logits[:, :MASK] = logits[:, MASK + 1 :] = self.value
        return logits


FORMS = [(value, where) for value in (NAN, INF) for where in ("token", "two tokens", "position", "all")]


def spread(*axes, every):
    """All combinations, of which one in ``every`` is tried at once and the others where there is time (wide)."""
    wide = [pytest.mark.wide]
    return [pytest.param(*values, marks=wide if n % every else []) for n, values in enumerate(product(*axes))]


def refused(sampler, processors=(), match="", model=None, **how):
    how = {"gen_length": 4, "block_length": 4} | how
    with pytest.raises(PromptError, match=match) as error:
        mdm.decode(model or toy_model(), ["hi"], sampler, logits_processors=processors, **how)
    assert "\n" not in str(error.value)


@pytest.mark.attack("numbers: a processor that makes them")
@pytest.mark.parametrize(("sampler", "form"), spread(SAMPLERS, FORMS, every=3))
def test_a_processor_is_named(sampler, form):
    warm, (value, where) = (SAMPLERS.index(sampler) + FORMS.index(form)) % 2, form
    word = "nan" if value != value else "infinity"
    refused(
        sampler, [Puts(value, where)], f"row 0 in step 0 are not finite: .*Puts gives {word}", temperature=float(warm)
    )


@pytest.mark.wide
@pytest.mark.attack("numbers: a processor that makes them")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize(("value", "where"), FORMS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_processor_is_named_under_every_cache(sampler, value, where, cache, temperature):
    refused(sampler, [Puts(value, where)], "Puts gives", temperature=temperature, cache=cache)


@pytest.mark.attack("numbers: every token is forbidden")
@pytest.mark.parametrize(("sampler", "where"), spread(SAMPLERS, ["all", "position", "all but the mask"], every=2))
def test_a_position_where_nothing_may_stand_is_named(sampler, where):
    refused(sampler, [Puts(-INF, where)], r"at position \d+ every token is forbidden, the last of them by .*Puts")


@pytest.mark.attack("numbers: what is legal")
@pytest.mark.parametrize(
    ("sampler", "temperature", "value", "where"),
    [
        pytest.param(*each.values[:2], *each.values[2], marks=each.marks) for each in spread(
            SAMPLERS, [0.0, 1.0], [(-INF, "token"), (0.0, "all"), (-1e38, "all but the mask"), (3e38, "token")], every=5
        )
    ],
)  # fmt: skip
def test_forbidden_tokens_constant_logits_and_huge_ones_are_legal(sampler, temperature, value, where):
    [result] = mdm.decode(
        toy_model(), ["hi"], sampler, gen_length=4, temperature=temperature, logits_processors=[Puts(value, where)]
    )
    assert MASK not in result.sequence and result.cumulative_entropy == result.cumulative_entropy


@pytest.mark.attack("numbers: what is legal")
@pytest.mark.parametrize(("sampler", "temperature"), spread(SAMPLERS, [0.0, 1.0], every=3))
def test_one_choice_is_legal(sampler, temperature):
    [result] = mdm.decode(toy_model(), ["hi"], sampler, gen_length=4, temperature=temperature, allowed_tokens=[(9, 10)])
    assert result.tokens == [9] * 4


def broken(name, value, every=False):
    model = toy_model()
    twin = copy.deepcopy(model)
    weight = dict(twin.body.named_parameters()).get(name, twin.lm_head.weight)
    weight.data.view(-1)[slice(None) if every else slice(5, 6)] = value
    return twin


@pytest.mark.attack("numbers: weights")
@pytest.mark.parametrize(
    ("every", "value", "weight", "sampler"),
    spread(
        [False, True], [NAN, INF, -INF],
        ["layers.1.self_attn.q_proj.weight", "layers.0.mlp.down_proj.weight", "norm.weight", "lm_head.weight"],
        ["eb", "info-gain", "beam"], every=5,
    ),
)  # fmt: skip
def test_a_weight_is_named_and_is_nobodys_fault(sampler, weight, value, every):
    with pytest.raises(mdm.MdmError, match=f"toy: weight {weight} holds [0-9,]+ numbers of") as error:
        mdm.decode(broken(weight, value, every), ["hi", "you"], sampler, gen_length=4)
    assert not isinstance(error.value, PromptError)


@pytest.mark.attack("numbers: half precision overflows")
@pytest.mark.parametrize(("dtype", "factor"), [(torch.float16, 3e4), (torch.bfloat16, 2e38)])
def test_a_layer_that_overflows_is_named(dtype, factor):
    model = copy.deepcopy(toy_model())
    model.body.to(dtype), model.lm_head.to(dtype)
    model.body.layers[1].mlp.down_proj.weight.data.mul_(0).add_(factor)
    refused("confidence", match="layer layers.1.mlp.*float16: load the model with dtype float32", model=model)


@pytest.mark.attack("numbers: a head that overflows, guided")
def test_a_head_of_large_numbers_is_named():
    model = copy.deepcopy(toy_model())
    model.lm_head.weight.data.mul_(1e38)
    refused("confidence", match="layer lm_head of toy gives infinity in float32", model=model, guidance=3.0)


OPTIONS = [
    (name, value) for name in ("guidance", "eos_penalty", "pad_penalty", "temperature", "top_p")
    for value in (NAN, INF, -INF, 1e300, 1e-300, -1e300)
]  # fmt: skip


@pytest.mark.attack("numbers: decoding options")
@pytest.mark.parametrize(("name", "value"), OPTIONS)
def test_decoding_options_are_numbers_to_compute_with(name, value):
    with pytest.raises(mdm.MdmError, match=f"^{name}="):
        mdm.decode(toy_model(), ["hi"], "confidence", gen_length=4, **{name: value})


@pytest.mark.attack("numbers: decoding options")
@pytest.mark.parametrize(
    ("name", "value"),
    [(n, s * 1e9) for n in ("guidance", "eos_penalty", "pad_penalty") for s in (1, -1)]
    + [("temperature", 1e-30), ("temperature", 1e30), ("temperature", 1e-7), ("top_k", 2**63 - 1)],
)
@pytest.mark.parametrize("sampler", ["confidence", "info-gain", "klass"])
def test_extreme_options_end_in_finite_answers(sampler, name, value):
    heat = {} if name != "top_k" else {"temperature": 1.0}
    [result] = mdm.decode(toy_model(), ["hi"], sampler, gen_length=4, **heat | {name: value})
    assert MASK not in result.sequence and result.cumulative_entropy == result.cumulative_entropy
    if (name, value) == ("eos_penalty", -1e9):
        assert result.tokens == [EOS] * 4
    if name == "temperature" and value < 1:
        assert result.tokens == mdm.decode(toy_model(), ["hi"], sampler, gen_length=4)[0].tokens


def floats():
    for kind in ("sampler", "cache", "task"):
        for name in registry.names(kind):
            for option, field in registry.resolve(kind, name).Options.model_fields.items():
                if "float" in str(field.annotation):
                    yield kind, name, option


@pytest.mark.attack("numbers: options of plugins")
@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e308, 1e-300])
@pytest.mark.parametrize(("kind", "name", "option"), list(floats()))
def test_options_of_plugins_are_numbers_to_compute_with(kind, name, option, value):
    from mdm.protocols.options import check_options

    with pytest.raises(mdm.MdmError, match=f"option {name}.{option}="):
        check_options(name, registry.resolve(kind, name).Options, {option: value})


@pytest.mark.attack("numbers: of one row of a batch")
@pytest.mark.parametrize(("sampler",), spread(["eb", "confidence", "info-gain"], every=3))
def test_in_a_run_they_are_that_examples(monkeypatch, tmp_path, sampler):
    config = {"task": "equations", "sampler": [sampler], "limit": 4, "gen_length": 4, "device": "cpu"}
    runs.run(build(RunConfig, None, config), tmp_path / "healthy")
    load = mdm.api.load_model

    def load_ill(*args, **how):
        model = load(*args, **how)
        plain, prompt = model.hidden, torch.tensor(model.encode(of("healthy")[2]["prompt"]))

        def hidden(tokens, positions, **around):
            ill = (tokens[:, : len(prompt)] == prompt).all(-1) if tokens.shape[1] >= len(prompt) else tokens[:, 0] < 0
            return plain(tokens, positions, **around).masked_fill(ill[:, None, None], NAN)

        model.hidden = hidden
        return model

    def of(folder):
        lines = map(json.loads, (tmp_path / folder / "results.jsonl").read_text().splitlines())
        return sorted(lines, key=lambda line: line["index"])

    monkeypatch.setattr(mdm.api, "load_model", load_ill)
    summary = runs.run(build(RunConfig, None, config), tmp_path / "ill")
    for healthy, ill in zip(of("healthy"), of("ill"), strict=True):
        if ill["index"] == 2:
            assert "the scores of row 2 in step 0 are not finite" in ill["error"] and not ill["metrics"]
        else:
            assert (ill["completion"], ill["forwards"]) == (healthy["completion"], healthy["forwards"])
    assert summary["runs"][0]["errors"] == 1
    assert "NaN" not in (tmp_path / "ill" / "results.jsonl").read_text()


class Gives:
    """A logits processor that answers something else."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, ids, logits):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer(logits) if callable(self.answer) else self.answer


@pytest.mark.attack("numbers: a processor that gives no logits")
@pytest.mark.parametrize(
    "answer",
    [
        None, "logits", 5, lambda x: x[:1], lambda x: x[:, :9], lambda x: x.long(), lambda x: x[0],
        lambda x: x.tolist(),
        StopIteration("x"), ValueError("two\nlines"), KeyError(3), RecursionError(),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sampler", ["confidence", "info-gain"])
def test_a_processor_that_gives_no_logits_is_named(sampler, answer):
    refused(sampler, [Gives(answer)], "logits processor Gives (gives|failed)")
