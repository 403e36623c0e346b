"""Keys of a config.json: what asks for another network is refused by name, what leaves it as it is loads."""

from __future__ import annotations

import json

import mdm
import pytest
from mdm.models.config_keys import end_tokens, rope_theta
from tiny_families import CONFIGS, EOS, save

REFUSED = [
    ("rope_scaling", {"rope_type": "linear", "factor": 4.0}),
    ("rope_scaling", {"type": "dynamic", "factor": 2.0}),
    ("rope_scaling", {"factor": 2.0}),
    ("rope_scaling", "yarn"),
    ("rope_parameters", {"rope_type": "yarn", "factor": 4.0}),
    ("rope_parameters", {"full_attention": {"rope_type": "default"}}),
    ("rope_parameters", {"rope_type": "default", "partial_rotary_factor": 0.25}),
    ("partial_rotary_factor", 0.25),
    ("num_experts", 16),
    ("num_local_experts", 4),
    ("n_routed_experts", 64),
    ("quantization_config", {"quant_method": "gptq", "bits": 4}),
    ("use_sliding_window", True),
    ("layer_types", ["full_attention", "sliding_attention"]),
    ("layer_types", ["linear_attention", "linear_attention"]),
    ("alibi", True),
    ("attn_logit_softcapping", 50.0),
    ("residual_multiplier", 0.22),
    ("mlp_bias", True),
    ("hidden_act", "gelu"),
]
PLAIN = [
    ("rope_scaling", None),
    ("rope_scaling", {}),
    ("rope_scaling", {"rope_type": "default"}),
    ("rope_scaling", {"type": "default"}),
    ("rope_parameters", {"rope_type": "default", "rope_theta": 10000.0}),
    ("num_experts", None),
    ("num_experts", 0),
    ("num_experts", 1),
    ("quantization_config", None),
    ("layer_types", ["full_attention", "full_attention"]),
    ("partial_rotary_factor", 1.0),
    ("alibi", False),
    ("mlp_bias", False),
    ("use_sliding_window", False),
]
FAMILIES = tuple(CONFIGS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {family: save(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


def loaded(folder, **changes):
    path = folder / "config.json"
    before = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(before) | changes))
        return mdm.load_model(folder, device="cpu")
    finally:
        path.write_text(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_asks_for_another_network_is_refused_by_name(folders, family):
    for key, value in REFUSED:
        with pytest.raises(mdm.MdmError) as caught:
            loaded(folders[family], **{key: value})
        # LLaDA2 rotates a share of each head, and reads it wherever it stands.
        named = "partial_rotary_factor" if family == "llada2" and "partial_rotary_factor" in str(value) else key
        assert f"config key '{named}' is" in str(caught.value) and "\n" not in str(caught.value), (key, value)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_what_means_off_loads(folders, family):
    for key, value in PLAIN:
        assert loaded(folders[family], **{key: value}).spec.family == family


def test_a_window_that_is_not_said_to_be_off_is_on(folders):
    with pytest.raises(mdm.MdmError, match="sliding_window"):
        loaded(folders["llada"], sliding_window=4096)
    with pytest.raises(mdm.MdmError, match="sliding_window"):
        loaded(folders["dream"], sliding_window=4096, use_sliding_window=None)
    loaded(folders["dream"], sliding_window=4096)  # use_sliding_window is False there


@pytest.mark.parametrize("family", FAMILIES)
def test_the_rotary_base_is_heeded_wherever_it_stands(folders, family):
    model = loaded(folders[family], rope_parameters={"rope_type": "default", "rope_theta": 777.0})
    assert model.body.config.rope_parameters["rope_theta"] == 777.0
    assert rope_theta({"rope_theta": 5.0}, 1.0) == 5.0 and rope_theta({}, 1.0) == 1.0


class Tokenizer:
    """What ``end_tokens`` asks of one."""

    def __init__(self, eos=None, **added):
        from tokenizers import AddedToken

        self.eos_token_id, self.added_tokens_decoder = eos, {i: AddedToken(text) for text, i in added.items()}


@pytest.mark.parametrize(
    ("config", "generation", "tokenizer", "turns", "ends"),
    [
        (3, None, None, (), (3,)),
        ([3, 4], None, None, (), (3, 4)),
        (None, None, None, (), ()),
        (3, {"eos_token_id": 5}, None, (), (3, 5)),
        (3, {"eos_token_id": [5, 3]}, None, (), (3, 5)),
        (3, {}, Tokenizer(7), (), (3, 7)),
        (3, {"eos_token_id": None}, Tokenizer(None, end=8), ("end",), (3, 8)),
        (3, None, Tokenizer(3, end=8), ("turn",), (3,)),
        (None, None, Tokenizer(99), (), ()),  # the network cannot write it
        (None, {"eos_token_id": [2, 99]}, Tokenizer(1), (), (2, 1)),
    ],
)
def test_end_tokens(tmp_path, config, generation, tokenizer, turns, ends):
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    assert end_tokens({"eos_token_id": config}, str(tmp_path), 50, tokenizer, turns) == ends


@pytest.mark.parametrize(
    "written", ["{", "[]", '{"eos_token_id": "x"}', '{"eos_token_id": [1.5]}', '{"eos_token_id": [[1]]}']
)
def test_end_tokens_that_cannot_be_read(tmp_path, written):
    (tmp_path / "generation_config.json").write_text(written)
    with pytest.raises(mdm.MdmError) as caught:
        end_tokens({"eos_token_id": EOS}, str(tmp_path), 256, None)
    assert "\n" not in str(caught.value)
