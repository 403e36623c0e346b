"""Every argument of the lm-eval model and of its tasks' generations changes something, or is refused by name.

The walk fails where an argument has no entry.
"""

from __future__ import annotations

import inspect
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import mdm
import pytest
from mdm.protocols.settings import Settings
from mdm.runs.config import RECORDED, DecodeConfig
from mdm_lm_eval.generation import CUTS, HEEDED, LENGTHS, NO_EFFECT, generation
from mdm_lm_eval.likelihood import Answer, exact
from mdm_testing.toy import toy_model
from tiny_families import save_causal

pytestmark = pytest.mark.skipif(
    not any(dist.name == "lm_eval" for dist in metadata.distributions()),
    reason="lm-eval is not installed (tox -e lm-eval has it)",
)

GRID = "1234341221430321:"
REFUSED = object()
ELSEWHERE = "tests/test_arguments.py"
"""What is written of a decoding option there holds here: both hand the same record to ``mdm.decode``."""

ARGUMENTS: dict[str, Any] = {
    # what is given beside the defaults -> what it changes, or the line that refuses it
    "pretrained": ({"pretrained": "nowhere"}, "no such folder"),
    "draws": ({"draws": 3}, "bounds"),
    "max_length": ({"max_length": 9}, "rolled"),
    "greedy": ({"greedy": True}, "bounds"),
    "batch_size": ({"batch_size": "some"}, "batch_size=some"),
    "max_batch_size": ({"max_batch_size": 2}, "goes with batch_size=auto"),
    "device": ({"device": "cuda:77"}, "cuda:77"),
    "settings": ({"candidatess": 3}, "no option 'candidatess'"),
    "model": ({"model": "nowhere"}, "the model is named by pretrained"),
    "sampler": ({"sampler": ["confidence", "random"]}, "lm-eval takes one"),
    "cache": ({"cache": "nnoe"}, "unknown cache 'nnoe'"),
    "trace": ({"trace": "full"}, "lm-eval keeps no traces"),
    "tokens_per_step": ({"tokens_per_step": [1, 2]}, "lm-eval takes one"),
    "gen_length": ({"gen_length": 3}, "written"),
    "temperature": ({"temperature": 30.0}, "written"),
    "seed": ({"seed": 4, "draws": 3}, "bounds"),
    "guidance": ({"guidance": 2.0}, "bounds"),
    "stop": ({"stop": ["3"]}, "written"),
    "adapter": ({"adapter": "lada"}, "unknown family"),
    "dtype": ({"dtype": "bfloat16"}, "bounds"),
    "device_map": ({"device_map": "auto", "device": "cpu"}, "both|does too"),
    "quantization": ({"quantization": "no-bits"}, "quantization=no-bits"),
    "attn_implementation": ({"attn_implementation": "flash_attention_2"}, "takes no mask|needs a CUDA GPU"),
    "adapter_weights": ({"adapter_weights": "nowhere"}, "peft|nowhere"),
    "merge_adapter": ({"merge_adapter": True}, "what becomes of an adapter"),
    "preset": ({"preset": "nowhere"}, "unknown preset"),
    "threads": ({"threads": "many"}, "threads=many"),
    "offline": ({"offline": "maybe"}, "offline=maybe"),
    "image_tokenizer": ({"image_tokenizer": "nowhere"}, "has no pictures|image_tokenizer"),
    "image_size": ({"image_size": 8}, "give image_tokenizer"),
    "unconditional": ({"unconditional": "4321:", "guidance": 90.0}, "written"),
    **dict.fromkeys(
        ("steps", "block_length", "schedule", "eos_penalty", "pad_penalty", "stop_at_eos", "eos_token_id",
         "pad_token_id", "allowed_tokens", "suppressed_tokens", "max_rows", "compile", "graphs", "reuse_scores"),
        ELSEWHERE,
    ),
    **dict.fromkeys({"top_p", "top_k", "score_after", "eos_rank"} & set(Settings.model_fields), ELSEWHERE),
}  # fmt: skip


def lm(**arguments: Any) -> Any:
    from mdm_lm_eval.model import MdmLM

    return MdmLM(**{"pretrained": "tiny", "sampler": "left-to-right", "draws": 5} | arguments)


def outcome(**arguments: Any) -> dict[str, Any]:
    model = lm(**arguments)
    asked = [SimpleNamespace(args=(GRID, {"max_gen_toks": 8}))]
    rolled = "refused" if model.config.guidance else model.loglikelihood_rolling([SimpleNamespace(args=(GRID,))], True)
    written = model.generate_until(asked, True)
    if model.config.unconditional is not None:
        return {"written": written}
    return {
        "written": written,
        "bounds": model.loglikelihood([SimpleNamespace(args=("123434122143", end)) for end in ("4312", "4321")], True),
        "rolled": rolled,
    }


@pytest.fixture(scope="module")
def plain():
    return outcome()


def test_every_argument_has_an_entry():
    from mdm_lm_eval.model import MdmLM

    named = {*inspect.signature(MdmLM.__init__).parameters} - {"self"}
    assert set(ARGUMENTS) == (named | set(DecodeConfig.model_fields)) - set(RECORDED)
    assert {name for name, entry in ARGUMENTS.items() if entry == ELSEWHERE} <= set(Settings.model_fields)


@pytest.mark.parametrize("name", [name for name, entry in ARGUMENTS.items() if entry != ELSEWHERE])
def test_an_argument_changes_something_or_is_refused(plain, name):
    given, effect = ARGUMENTS[name]
    if effect in plain:
        assert outcome(**given)[effect] != plain[effect]
        return
    with pytest.raises(mdm.MdmError, match=effect) as caught:
        lm(**given)
    assert "\n" not in str(caught.value)


def test_a_decoding_option_is_handed_on():
    """Those whose effect the core's walk shows: each reaches the call of ``mdm.decode``."""
    from mdm.runs.decode_args import decode_settings

    for name in (name for name, entry in ARGUMENTS.items() if entry == ELSEWHERE):
        value = {"schedule": "cosine", "allowed_tokens": [[3, 9]], "suppressed_tokens": [3], "score_after": "tempered",
                 "eos_rank": "last", "top_p": 0.5, "graphs": False, "reuse_scores": False}.get(name, 1)  # fmt: skip
        with_them = {"top_p": {"temperature": 0.5}, "top_k": {"temperature": 0.5}, "score_after": {"temperature": 0.5}}
        model = lm(**{name: value} | with_them.get(name, {}))
        given = decode_settings(model.config, model.model, "left-to-right")[name]
        assert given != Settings.model_fields[name].default and name in model.asked


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"draws": 4}, "draws and greedy do not apply"),
        ({"greedy": True}, "draws and greedy do not apply"),
        ({"guidance": 1.0}, "guidance 1.0 does not apply"),
        ({"sampler": "confidence"}, "sampler confidence does not apply"),
        ({"cache": "none"}, "cache none does not apply"),
        ({"steps": 4}, "steps 4 does not apply"),
    ],
)
def test_what_an_autoregressive_model_has_not_is_refused(tmp_path, given, said):
    from mdm_lm_eval.model import MdmLM

    with pytest.raises(mdm.MdmError, match=said):
        MdmLM(pretrained=str(save_causal(tmp_path / "llama")), device="cpu", **given)


def test_an_autoregressive_model_answers_all_three_kinds_of_request(tmp_path):
    from mdm_lm_eval.model import MdmLM

    model = MdmLM(pretrained=str(save_causal(tmp_path / "llama")), device="cpu", max_length=8)
    pairs = [SimpleNamespace(args=pair) for pair in (("12+", "3"), ("12+", "34"), ("", "1"))]
    values = model.loglikelihood(pairs, True)
    assert all(value < 0 for value, _ in values) and values[1][0] < values[0][0]
    [rolled] = model.loglikelihood_rolling([SimpleNamespace(args=("1+2=3 4+5=9 6+7",))], True)
    assert rolled < values[2][0]
    [short] = model.loglikelihood_rolling([SimpleNamespace(args=("12",))], True)
    [(behind_eos, _)] = exact(model.model, [Answer((1,), tuple(model.model.encode("12")))], max_length=8)
    assert short == pytest.approx(behind_eos, abs=1e-4)
    [text] = model.generate_until([SimpleNamespace(args=("12+", {"max_gen_toks": 4}))], True)
    assert len(text) <= 4


def test_a_second_prompt_does_not_apply_to_log_likelihoods():
    plain, second = lm(guidance=90.0), lm(guidance=90.0, unconditional="4321:")
    asked = [SimpleNamespace(args=(GRID, {"max_gen_toks": 8}))]
    assert plain.generate_until(asked, True) != second.generate_until(asked, True)
    with pytest.raises(mdm.MdmError, match="unconditional does not apply to log-likelihoods"):
        second.loglikelihood([SimpleNamespace(args=("12", "34"))], True)


def test_guidance_does_not_apply_to_rolling_log_likelihoods():
    with pytest.raises(mdm.MdmError, match="guidance=2 does not apply to rolling log-likelihoods"):
        lm(guidance=2.0).loglikelihood_rolling([SimpleNamespace(args=(GRID,))], True)


def settings(**asked: Any) -> dict[str, Any]:
    return dict(generation(asked, {}, []).settings)


def test_every_generation_argument_that_is_heeded_changes_something():
    plain = generation({}, {}, [])
    samples = {**dict.fromkeys(LENGTHS, 7), "until": ["x"], "do_sample": True, "temperature": 0.7}
    assert set(samples) | set(CUTS) == set(HEEDED)
    for name, value in samples.items():
        assert generation({name: value}, {}, []) != plain, name


@pytest.mark.parametrize(
    ("asked", "temperature"),
    [
        ({}, 0.0),
        ({"temperature": 0.7}, 0.7),
        ({"do_sample": False, "temperature": 0.7}, 0.0),
        ({"do_sample": True, "temperature": 0.7}, 0.7),
        ({"do_sample": True}, 1.0),
        ({"do_sample": True, "temperature": 0.0}, 0.0),
        ({"do_sample": None, "temperature": None}, 0.0),
        ({"do_sample": False, "top_p": 0.9, "top_k": 50}, 0.0),  # what is not drawn is not cut
    ],
)
def test_temperature(asked, temperature):
    assert settings(**asked) == {"temperature": temperature, "stop": ()}


@pytest.mark.parametrize(("name", "value"), [("top_p", 0.9), ("top_k", 5), ("top_p", 1e-6), ("top_k", 1)])
def test_what_leaves_out_improbable_tokens_is_an_option_or_refused(name, value):
    if name in Settings.model_fields:
        assert settings(do_sample=True, **{name: value})[name] == value
    else:
        with pytest.raises(mdm.MdmError, match=f"generation argument {name}={value}"):
            settings(do_sample=True, **{name: value})
    for none in CUTS[name]:
        assert name not in settings(do_sample=True, **{name: none})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_beams", 4), ("repetition_penalty", 1.2), ("min_p", 0.1), ("no_repeat_ngram_size", 3), ("max_length", 99),
        ("presence_penalty", 0.5), ("skip_special_tokens", False), ("wibble", 1), ("num_return_sequences", 2),
        ("do_samples", True), ("stop", ["x"]), ("seed", 3),
    ],
)  # fmt: skip
def test_what_is_not_done_is_refused_by_name(name, value):
    with pytest.raises(mdm.MdmError, match=f"generation argument {name}=") as caught:
        generation({name: value}, {}, [])
    assert "\n" not in str(caught.value)


def test_what_asks_for_what_is_done_anyway_changes_nothing():
    for name, values in NO_EFFECT.items():
        for value in values:
            assert generation({name: value}, {}, []) == generation({}, {}, [])


def test_the_models_own_arguments_come_first():
    asked = {"max_gen_toks": 99, "temperature": 0.2, "until": ["a", ""]}
    found = generation(asked, {"gen_length": 7, "temperature": 0.0}, ["b"])
    assert found.length == 7 and dict(found.settings) == {"stop": ("b", "a"), "temperature": 0.0}
    assert dict(generation(asked, {}, []).settings) == {"stop": ("a",), "temperature": 0.2}


def test_until_is_of_texts():
    with pytest.raises(mdm.MdmError, match="generation argument until=5: it should be a text or several"):
        settings(until=5)


def test_a_length_of_nothing_is_not_the_tasks():
    assert generation({"max_gen_toks": 9}, {"gen_length": 0}, []).length == 0


def test_what_a_preset_says_holds_for_every_task():
    pytest.importorskip("mdm_dream")
    with pytest.warns(mdm.errors.MdmWarning, match="preset dream-instruct is meant for dream models, and tiny is of"):
        model = lm(preset="dream-instruct", top_p=0.8)
    asked = {"do_sample": False, "temperature": 0.0, "max_gen_toks": 9}
    assert generation(asked, model.asked, []).settings == (("stop", ()), ("temperature", 0.1), ("top_p", 0.8))


def test_until_ends_at_special_tokens_too():
    from mdm_lm_eval.encoding import Encoder

    model = lm()
    model.model = toy_model()
    model.encoder = Encoder(model.model)
    model.config = model.config.model_copy(update={"allowed_tokens": [(34, 37), (258, 259)]})
    asked = {"max_gen_toks": 24, "temperature": 30.0}
    texts = model.generate_until([SimpleNamespace(args=("hi", asked | {"until": u})) for u in ([], ["<pad>"])], True)
    ids = mdm.decode(
        toy_model(), ["hi"], "left-to-right", gen_length=24, temperature=30.0, allowed_tokens=[(34, 37), (258, 259)],
        row_ids=[1],
    )[0].tokens  # fmt: skip
    pieces = toy_model().token_texts(ids)
    assert "<pad>" in pieces and texts[1] == "".join(pieces[: pieces.index("<pad>")])
