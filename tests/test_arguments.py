"""Every argument of ``mdm.decode`` and of the commands changes something, or is refused where it does not apply.

The walk fails where an argument has no entry: an entry is a call that shows it here, or the test that does.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import click
import mdm
import pytest
from mdm.cli.generate import generate
from mdm.cli.run import run
from mdm.models.loading import load_model
from mdm.protocols.settings import DIFFUSION_ONLY, Settings
from mdm.runs import config as configs
from mdm.runs.config import RECORDED, DecodeConfig, LoadingConfig, PolicyConfig, RunConfig
from mdm_testing.toy import EOS, toy_model
from tiny_families import save_causal
from transformers import SuppressTokensLogitsProcessor

ROOT = Path(__file__).parent.parent
LOOKING = {"sampler": "info-gain", "sampler_options": {"candidates": 4}}
BASE: dict[str, Any] = {
    "prompts": ["hello", "a longer one"],
    "sampler": "confidence",
    "gen_length": 8,
    "block_length": 4,
}
ENDS = {"allowed_tokens": [(EOS - 40, EOS + 1)], "temperature": 2.0}
"""With which end tokens are written among others."""

DECODE: dict[str, Any] = {
    # name: its value; or (what else is asked, its value); or the test that shows it
    "model": lambda: toy_model("block-causal"),
    "prompts": ["hullo", "a longer one"],
    "sampler": "random",
    "sampler_options": ({"sampler": "info-gain", "trace": "full"}, {"candidates": 2}),
    "cache": "dual",
    "cache_options": ({"cache": "dual", "block_length": 8}, {"refresh": 1}),
    "gen_length": 5,
    "suffix": [7, 8],
    "unconditional": ({"guidance": 1.0}, "x"),
    "logits_processors": lambda: [SuppressTokensLogitsProcessor(list(range(200)))],
    "row_ids": ({"temperature": 1.0}, [5, 6]),
    "trace": False,
    "on_finish": "tests/engine/test_steps.py::test_a_grid_with_more_blocks_is_refused_before_any_is_decoded",
    "on_step": "tests/cli/test_live.py::test_elsewhere_each_step_is_a_line_and_stdout_stays_clean",
    "seed": ({"temperature": 1.0}, 3),
    "steps": 2,
    "tokens_per_step": 2,
    "schedule": ({"steps": 4, "block_length": 8}, "cosine"),
    "temperature": 1.0,
    "top_p": ({"temperature": 1.0}, 0.3),
    "top_k": ({"temperature": 2.0}, 1),
    "score_after": ({"temperature": 0.3, "sampler": "entropy"}, "tempered"),
    "eos_rank": (ENDS, "last"),
    "guidance": 1.0,
    "eos_penalty": (ENDS, 50.0),
    "pad_penalty": ({"allowed_tokens": [(EOS, EOS + 2)]}, 50.0),
    "stop_at_eos": (ENDS | {"eos_token_id": 232}, True),
    "eos_token_id": (ENDS | {"stop_at_eos": True}, 232),
    "stop": (ENDS | {"allowed_tokens": [(30, 90)]}, [*map(chr, range(33, 127))]),
    "pad_token_id": ({"allowed_tokens": [(3, 5)], "pad_penalty": 50.0}, 4),
    "allowed_tokens": [(3, 9)],
    "suppressed_tokens": list(range(128)),
    "batch_size": 1,
    "max_rows": (LOOKING, 1),
    "compile": "tests/models/test_compiled.py::test_what_cannot_be_compiled_is_named",
    "graphs": "tests/models/test_cuda_graphs.py::test_without_graphs_nothing_is_captured",
    "reuse_scores": (LOOKING, False),
    "block_length": ({"steps": 2}, 8),
}


def decode_arguments() -> set[str]:
    names = set(inspect.signature(mdm.decode).parameters)
    assert set(Settings.model_fields) <= names
    return names


def shown(entry: str) -> None:
    """The test that an entry names is there."""
    path, _, name = entry.partition("::")
    assert f"def {name.rpartition('::')[2]}(" in (ROOT / path).read_text(), entry


def outcome(**arguments: Any) -> list[Any]:
    """What a decode gives, and in how many batches."""
    steps: list[Any] = []
    arguments = {"model": toy_model(), **BASE, "on_step": lambda event: steps.append(len(event.lines)), **arguments}
    return [mdm.decode(arguments.pop("model"), arguments.pop("prompts"), **arguments), steps]


def test_every_argument_of_decode_has_an_entry():
    assert set(DECODE) == decode_arguments()


@pytest.mark.parametrize("name", DECODE)
def test_an_argument_of_decode_changes_something(name):
    entry = DECODE[name]
    if isinstance(entry, str) and "::" in entry:
        return shown(entry)
    others, value = entry if isinstance(entry, tuple) else ({}, entry)
    value = value() if callable(value) else value
    assert outcome(**others, **{name: value}) != outcome(**others)


@pytest.mark.parametrize("name", [n for n in DIFFUSION_ONLY if n not in ("sampler", "cache")] + ["sampler", "cache"])
def test_what_an_autoregressive_model_has_not_is_refused(tmp_path_factory, name):
    model = _causal(tmp_path_factory)
    value = DECODE[name][1] if isinstance(DECODE[name], tuple) else DECODE[name]
    others = {"temperature": 0.3} if name == "score_after" else {}
    with pytest.raises(mdm.MdmError, match=f"^{name.replace('_', ' ')} .* does not apply to ar"):
        mdm.decode(model, [[5, 6]], gen_length=2, **others, **{name: value})


def _causal(factory: Any, kept: list[Any] = []) -> Any:  # noqa: B006  loaded once
    if not kept:
        kept.append(mdm.load_model(save_causal(factory.mktemp("causal")), device="cpu"))
    return kept[0]


COMMANDS: dict[str, Any] = {
    # flags of a run or of generate that are no decoding options: what is written behind them, or the test
    "model": "tests/runs/test_run.py::test_a_mistake_of_a_later_model_keeps_what_was_done",
    "sampler": "tests/runs/test_run.py::test_comparison",
    "cache": "tests/runs/test_run.py::test_what_the_engine_is_asked",
    "trace": "tests/runs/test_run.py::test_what_the_engine_is_asked",
    "task": "tests/runs/test_config.py::test_unknown_plugin_is_named_first",
    "preset": "tests/runs/test_config.py::test_a_preset_sets_what_nobody_else_does",
    "prompt_style": "tests/runs/test_run.py::test_prompts_become_canvases",
    "data": "tests/runs/test_run.py::test_data_without_limit_is_every_row",
    "limit": "tests/runs/test_run.py::test_data_without_limit_is_every_row",
    "repeats": "tests/runs/test_run.py::test_repeats",
    "allow_code_execution": "tests/runs/test_run.py::test_code_runs_only_where_it_is_allowed",
    "file": "tests/runs/test_config.py::test_flags_win_over_the_file",
    "out": "tests/runs/test_run.py::test_run_command",
    "num_processes": "tests/runs/test_processes.py::test_two_processes_do_as_one",
    "live": "tests/cli/test_live.py::test_a_watched_run_writes_what_an_unwatched_one_does",
    "watched": "tests/cli/test_live.py::test_elsewhere_each_step_is_a_line_and_stdout_stays_clean",
    "fail_fast": "tests/runs/test_run.py::test_fail_fast",
    "retry_failed": "tests/runs/test_extend.py::test_failed_examples_alone_are_decoded_again",
    "quiet": "tests/cli/test_progress.py::test_quiet_leaves_warnings",
    "verbose": "tests/cli/test_progress.py::test_a_short_run_prints_no_line_and_a_verbose_one_its_notes",
    "log_file": "tests/cli/test_progress.py::test_a_log_file_has_times_and_the_last_line_whatever_the_terminal_shows",
    "assignments": "tests/runs/test_config.py::test_options_are_complete_and_typed",
    "as_json": "tests/runs/test_run.py::test_generate_command",
    "text": "tests/runs/test_run.py::test_generate_command",
    "infill": "tests/runs/test_run.py::test_generate_command",
    "mask": "tests/test_arguments.py::test_a_mask_is_for_infills",
    "chat": "tests/test_arguments.py::test_a_chat_and_a_text_are_other_prompts",
    "device": "tests/models/test_loading.py::test_what_cannot_be_had",
    "device_map": "tests/models/test_loading.py::test_a_layer_that_waits_on_the_disk",
    "dtype": "tests/models/test_loading.py::test_flags_reach_the_decoding",
    "quantization": "tests/models/test_loading.py::test_quantization_without_its_library",
    "attn_implementation": "tests/models/test_loading.py::test_another_way_to_the_same_logits",
    "adapter": "tests/models/test_loading.py::test_another_architecture",
    "adapter_weights": "tests/models/test_lora.py::test_on_the_command_line",
    "merge_adapter": "tests/models/test_lora.py::test_merged_or_beside_the_weights_it_is_the_formula",
    "threads": "tests/models/test_threads.py::test_a_command_computes_with_so_many",
    "offline": "tests/models/test_loading.py::test_offline_asks_no_hub",
    "image_tokenizer": "tests/cli/test_pictures.py::test_a_picture_is_drawn_and_costs_are_said",
    "image_size": "tests/cli/test_pictures.py::test_a_size_of_ones_own",
    "unconditional": "tests/cli/test_pictures.py::test_a_negative_prompt",
    "image": "tests/cli/test_pictures.py::test_a_picture_is_drawn_and_costs_are_said",
    "count": "tests/cli/test_pictures.py::test_several_are_one_sheet",
    "look": "tests/cli/test_pictures.py::test_a_picture_is_looked_at",
    "candidates": "tests/cli/test_pictures.py::test_several_are_one_sheet",
}


def flags() -> dict[str, list[click.Parameter]]:
    found: dict[str, list[click.Parameter]] = {}
    for parameter in [*run.params, *generate.params]:
        found.setdefault(str(parameter.name), []).append(parameter)
    return found


def test_every_flag_has_an_entry():
    assert set(flags()) - set(COMMANDS) == set(Settings.model_fields)
    assert set(COMMANDS) <= set(flags())
    for entry in COMMANDS.values():
        shown(entry)


def test_every_key_of_a_configuration_has_a_flag():
    """And what loads a model are arguments of ``load_model``, so that none is dropped on its way."""
    assert set(RunConfig.model_fields) - set(RECORDED) == set(flags()) & set(RunConfig.model_fields)
    assert set(LoadingConfig.model_fields) <= set(inspect.signature(load_model).parameters)
    others = {*Settings.model_fields, *LoadingConfig.model_fields, *PolicyConfig.model_fields, *RECORDED}
    assert set(DecodeConfig.model_fields) - others == {"preset", "trace", "unconditional"}


def flag_values(name: str) -> list[str]:
    value = DECODE[name][1] if isinstance(DECODE[name], tuple) else DECODE[name]
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool) or name in ("compile", "graphs"):
        return [f"--no-{flag[2:]}" if Settings.model_fields[name].default else flag]
    several = value if isinstance(value, list) else [value]
    return [part for one in several for part in (flag, ":".join(map(str, one)) if isinstance(one, tuple) else str(one))]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_flag_reaches_what_decode_is_given(name):
    """The same value by flag, in a form that ``mdm.decode`` takes."""
    from mdm.cli.flags import used
    from mdm.runs.decode_args import decode_settings

    class Given:
        spec = toy_model().spec

    def settings(*arguments: str) -> dict[str, Any]:
        parsed = run.make_context("run", list(arguments)).params
        config = configs.build(RunConfig, None, used({k: v for k, v in parsed.items() if k in RunConfig.model_fields}))
        return decode_settings(config, Given, config.sampler[0]) | {"gen_length": config.gen_length}  # type: ignore[arg-type]

    # Without a temperature these change nothing, and are refused.
    needed = ["--temperature", "0.3"] if name in ("top_p", "top_k", "score_after") else []
    before, after = settings(*needed), settings(*needed, *flag_values(name))
    assert before[name] != after[name]
    assert {key for key in after if after[key] != before[key]} == {name}


def test_a_prompt_style_decides_how_a_task_asks(tmp_path):
    from click.testing import CliRunner
    from mdm.cli import cli

    places = []
    for style in ("compact", "chat"):
        command = ["run", "--task", "countdown", "--limit", "1", "--sampler", "confidence", "--prompt-style", style]
        done = CliRunner().invoke(cli, [*command, "--gen-length", "1", "--out", str(tmp_path / style)])
        assert done.exit_code == 0, done.output
        [trace] = (tmp_path / style).rglob("trace*.jsonl")
        places.append(json.loads(trace.read_text())["positions"])
    assert places[0] < places[1]  # a chat is a longer prompt


def test_a_mask_is_for_infills():
    from click.testing import CliRunner
    from mdm.cli import cli

    def said(*arguments: str) -> str:
        done = CliRunner().invoke(cli, ["generate", *arguments, "--sampler", "confidence", "--cache", "none"])
        return str(done.exception or done.stdout)

    assert said("--infill", "2*_4=48", "--mask", "_").strip() == "2*24=48"
    assert said("2*_4=48", "--mask", "_") == "--mask _ is how an infill writes a masked token: give --infill too"
    assert said("--infill", "2*_4=48", "--mask", "") == "--mask is empty"
    assert said("--infill", "2*_4=48").endswith("the text holds no [MASK]")


def test_a_chat_and_a_text_are_other_prompts():
    from click.testing import CliRunner
    from mdm.cli import cli

    plain, chat = (
        CliRunner().invoke(cli, ["generate", "12+30=", flag, "--gen-length", "2", "--sampler", "confidence"])
        for flag in ("--no-chat", "--chat")
    )
    assert plain.exit_code == 0 and (chat.exception or chat.stdout != plain.stdout)
    both = CliRunner().invoke(cli, ["generate", "[MASK]", "--chat", "--infill"])
    assert "cannot be a --chat message" in str(both.exception)
