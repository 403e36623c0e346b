"""``mdm.decode``: what it accepts, what it refuses in one line, and what it answers."""

from __future__ import annotations

import inspect
from dataclasses import replace

import mdm
import pytest
from mdm.errors import MdmError
from mdm.models import Model
from mdm.protocols import NoOptions
from mdm.protocols.settings import Settings, help_text
from mdm_testing.toy import EOS, VOCABULARY, toy_model


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def endless(model):
    """The same model without an end and a padding token."""
    spec = replace(model.spec, eos_ids=(), pad_id=None)
    return Model(spec, model.body, model.lm_head, model.tokenizer, name="endless")


def refusal(model, prompts=("hello",), sampler="confidence", **call):
    with pytest.raises(MdmError) as caught:
        mdm.decode(model, list(prompts), sampler, **{"gen_length": 4, **call})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_options_are_its_keywords_and_documented():
    parameters = inspect.signature(mdm.decode).parameters
    for name, field in Settings.model_fields.items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY and parameters[name].default == field.default
        if name != "gen_length":
            assert f"\n        {name}: {help_text(field)}\n" in mdm.decode.__doc__
    assert "options" not in parameters
    assert mdm.decode.__doc__.index("on_step:") < mdm.decode.__doc__.index("seed:") < mdm.decode.__doc__.index("Raises")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"tempreature": 1.0}, "there is no option 'tempreature'. Did you mean 'temperature'? There are: seed, "),
        ({"row_id": [1]}, "there is no option 'row_id'. Did you mean 'row_ids'?"),
        ({"temperature": float("nan")}, "temperature=nan: should be a finite number"),
        ({"temperature": -1}, "temperature=-1: should be greater than or equal to 0"),
        ({"guidance": float("inf")}, "guidance=inf: should be a finite number"),
        ({"schedule": "evn"}, "schedule=evn: should be 'even', 'linear', 'cosine', 'dream', 'maskgit'"),
        ({"steps": 0}, "steps=0: should be greater than or equal to 1"),
        ({"steps": 2, "tokens_per_step": 2}, "give either steps or tokens_per_step, not both"),
        ({"batch_size": "many"}, "batch_size=many: should be a valid integer or should be 'auto'"),
        ({"gen_length": -1}, "gen_length=-1: should be greater than or equal to 0"),
        ({"gen_length": [4, "four"]}, "gen_length=four: should be a valid integer"),
        ({"allowed_tokens": []}, "allowed_tokens=[]: should have at least 1 item"),
        ({"allowed_tokens": [(9, 3)]}, f"allowed_tokens 9:3: not a range of ids in the vocabulary of {VOCABULARY}"),
        ({"suppressed_tokens": [-1]}, "suppressed_tokens=-1: should be greater than or equal to 0"),
        ({"eos_token_id": 999}, f"eos_token_id: token id 999 is outside the vocabulary of {VOCABULARY}"),
        ({"pad_token_id": 999}, f"pad_token_id: token id 999 is outside the vocabulary of {VOCABULARY}"),
        ({"trace": "all"}, "trace is 'all': it is True, False or \"full\""),
        ({"sampler_options": {"alpha": 1}}, "option confidence.alpha: there is no such name."),
        ({"cache": "none", "cache_options": {"a": 1}}, "option none.a: there is no such name. There are: no options"),
    ],
)
def test_what_is_refused(model, call, said):
    assert said in refusal(model, **call)


@pytest.mark.parametrize("option", ["stop_at_eos", "eos_penalty", "pad_penalty"])
def test_an_option_about_a_token_that_the_model_lacks(endless, option):
    token = "padding" if option == "pad_penalty" else "end"
    assert refusal(endless, **{option: True}).startswith(
        f"{option}: this toy model has no {token} token; name one with"
    )
    named = {"pad_token_id" if option == "pad_penalty" else "eos_token_id": 65}
    [result] = mdm.decode(endless, ["hello"], "confidence", gen_length=4, **{option: True}, **named)
    assert len(result.tokens) == 4


def test_the_text_ends_at_the_end_token_in_use(model):
    [plain] = mdm.decode(model, ["hello"], "left-to-right", gen_length=6)
    end = plain.tokens[2]
    first = plain.tokens.index(end)
    [cut] = mdm.decode(model, ["hello"], "left-to-right", gen_length=6, eos_token_id=end)
    assert cut.tokens == plain.tokens and cut.text == model.decode(plain.tokens[:first])
    [other] = mdm.decode(
        model, ["hello"], "left-to-right", gen_length=6, eos_token_id=end, allowed_tokens=[(EOS, EOS + 1)]
    )
    assert other.text == model.decode([EOS] * 6, ()), "the model's own end token ends nothing where another is named"


def test_an_object_has_its_options_already(model):
    from mdm import registry

    sampler = registry.resolve("sampler", "random")(NoOptions())
    assert "give sampler_options with a name only" in refusal(model, sampler=sampler, sampler_options={"a": 1})


def test_numbers_of_other_libraries(model):
    import numpy
    import torch

    [one] = mdm.decode(model, ["hello"], "confidence", gen_length=4, suppressed_tokens=[3, 4])
    [two] = mdm.decode(
        model, [torch.tensor(model.encode("hello"))], "confidence", gen_length=numpy.int64(4),
        suppressed_tokens=torch.tensor([3, 4]), row_ids=numpy.array([0]),
    )  # fmt: skip
    assert one.tokens == two.tokens


def test_no_prompt_no_result(model):
    assert mdm.decode(model, [], "confidence") == []


def test_the_version_is_the_installed_packages():
    import subprocess
    import sys
    from importlib.metadata import version

    code = "import sys, mdm; print(mdm.__version__, {'torch', 'pydantic'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith(version("mdm-core")) and "torch" not in said and "pydantic" not in said
    assert "__version__" in dir(mdm) and "steps" in dir(mdm)
