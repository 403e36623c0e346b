"""What a body comes to over a server's own settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mdm.protocols.settings import Settings
from mdm_serve.errors import ApiError
from mdm_serve.schema import SETTINGS, Chat, Completion, completion_job, parse


def arguments(defaults: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = parse(Completion, json.dumps({"prompt": "1"} | fields).encode(), "tiny")
    return dict(completion_job(body, defaults).arguments)


PACED = {"gen_length": 64, "steps": 32, "block_length": 16}
ONE_BLOCK = {"gen_length": 64, "block_length": 64}


@pytest.mark.parametrize(
    ("defaults", "fields", "expected"),
    [
        ({}, {}, {}),
        (PACED, {}, {}),
        (PACED, {"max_tokens": 128}, {"gen_length": 128, "steps": 64}),
        (PACED, {"max_tokens": 0}, {"gen_length": 0, "tokens_per_step": 1}),
        (PACED, {"max_tokens": 128, "steps": 5}, {"gen_length": 128, "steps": 5}),
        (PACED, {"max_tokens": 128, "tokens_per_step": 4}, {"gen_length": 128, "tokens_per_step": 4}),
        (ONE_BLOCK, {"max_tokens": 100}, {"gen_length": 100, "block_length": 100}),
        (ONE_BLOCK, {"max_tokens": 100, "block_length": 8}, {"gen_length": 100, "block_length": 8}),
        ({}, {"temperature": 0, "top_p": 0.5, "top_k": 3}, {"temperature": 0}),
        ({}, {"temperature": 0, "top_k": 3, "score_after": "tempered"}, None),
        ({}, {"temperature": 1, "top_p": 0.5, "seed": None}, {"temperature": 1, "top_p": 0.5}),
        ({"guidance": 1.0, "unconditional": "2"}, {}, {"unconditional": "2"}),
        ({"guidance": 1.0, "unconditional": "2"}, {"unconditional": "3"}, {"unconditional": "3"}),
        ({"guidance": 1.0, "unconditional": "2"}, {"guidance": 0}, {"guidance": 0}),
    ],
)
def test_settings_of_a_request_over_those_of_the_server(defaults, fields, expected):
    kept = {name: value for name, value in fields.items() if value is not None}
    assert arguments(defaults, **fields) == (kept if expected is None else expected)


def test_bodies_hold_every_option_that_is_not_the_servers_own():
    missing = set(Settings.model_fields) - set(SETTINGS)
    assert missing == {"gen_length", "batch_size", "max_rows", "compile", "graphs", "reuse_scores"}
    for schema in (Chat, Completion):
        assert set(SETTINGS) <= set(schema.model_fields)


def test_a_model_of_another_name():
    with pytest.raises(ApiError) as refused:
        parse(Completion, b'{"prompt": "1", "model": "tini"}', "tiny")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    assert "'tiny'" in str(refused.value)
