"""``mdm serve``: its flags, and what they come to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from mdm.cli.flags import Grouped, decode_flags, used
from mdm.errors import MdmError

KEY = "MDM_API_KEY"
"""The environment variable that may hold the key."""
NOT_SERVED = {
    "trace": "a request asks for its trace, by mdm_trace",
    "image_tokenizer": "pictures are not served",
    "image_size": "pictures are not served",
}
"""Flags of decoding that do not apply."""


@click.command(cls=Grouped)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--name", metavar="NAME", help="What requests call the model.  [default: as --model does]")
@click.option("--queue", default=256, show_default=True, type=click.IntRange(1), help="Rows that may wait for room.")
@click.option(
    "--row-tokens", type=click.IntRange(1), metavar="N",
    help="Tokens of all canvases that are decoded at once.  [default: by the memory]",
)  # fmt: skip
@click.option(
    "--max-length", type=click.IntRange(1), metavar="N",
    help="Tokens of a request, its answer included.  [default: as many as the model was trained on]",
)  # fmt: skip
@click.option(
    "--timeout", default=600.0, show_default=True, type=click.FloatRange(0, min_open=True), metavar="SECONDS",
    help="How long a request may take, waiting included; also how long the server waits for what runs when it ends.",
)  # fmt: skip
@click.option("--max-body", default=2**21, show_default=True, type=click.IntRange(1), help="Bytes of a request.")
@click.option(
    "--api-key-file", type=click.Path(path_type=Path, dir_okay=False),
    help=f"The key that clients have to send.  [default: {KEY} of the environment, if there is one]",
)  # fmt: skip
@click.option("--no-api-key", is_flag=True, help="Serve without a key, whoever can reach --host.")
@click.option("--log-prompts", is_flag=True, help="Show in the log what is asked.")
@decode_flags
def serve(
    host: str, port: int, name: str | None, queue: int, row_tokens: int | None, max_length: int | None,
    timeout: float, max_body: int, api_key_file: Path | None, no_api_key: bool, log_prompts: bool,
    assignments: tuple[str, ...], as_json: bool, **flags: Any,
) -> None:  # fmt: skip
    """Serve a model at an OpenAI-compatible endpoint.

    The settings of decoding hold for every request that does not bring its own.
    """
    from mdm.runs import config as configs, presets
    from mdm.runs.decode_args import load_model

    from mdm_serve import server
    from mdm_serve.app import arguments_of, make_app, make_service
    from mdm_serve.limits import Limits

    asked = used(flags)
    for flag in (flag for flag in NOT_SERVED if flag in asked):
        raise MdmError(f"--{flag.replace('_', '-')} does not apply to a server: {NOT_SERVED[flag]}")
    config = configs.build(configs.DecodeConfig, None, asked, assignments)
    if max(len(config.model), len(config.sampler), len(config.tokens_per_step or [])) > 1:
        raise MdmError("serve takes one --model and one --sampler at one pace; a request may name another sampler")
    key = None if no_api_key else _key(api_key_file)
    if no_api_key and api_key_file is not None:
        raise MdmError("--no-api-key and --api-key-file: give one of them")
    with server.listen(host, port) as listener:
        loopback = server.is_loopback(listener)
        if not (loopback or key or no_api_key):
            raise MdmError(
                f"--host {host} can be reached from other machines: give a key (--api-key-file FILE, or {KEY} in the "
                "environment), or say --no-api-key"
            )
        limits = Limits(queue, timeout, max_body, key, loopback, max_length, log_prompts)
        model = load_model(config, config.model[0])
        for warning in presets.warnings(config.preset, {config.model[0]: model.spec.family}):
            click.echo(f"mdm: {warning}", err=True)
        name = name or next(iter(flags["model"] or config.model))  # a folder as it was written, not its whole path
        service = make_service(model, name, arguments_of(config, model), limits, row_tokens=row_tokens)
        service.worker.open()  # what does not fit is said before anybody is let in
        server.log_to_stderr()
        _welcome(server.url_of(listener), name, bool(key), as_json)
        server.serve(make_app(service), service, listener)


def _key(file: Path | None) -> str | None:
    """The key that clients have to send, if there is one."""
    from mdm.data.documents import read_text

    if file is None:
        key, where = os.environ.get(KEY), f"{KEY} in the environment"
        if key is None:
            return None
    else:
        try:
            key, where = read_text(file, 4096), str(file)
        except FileNotFoundError:
            raise MdmError(f"--api-key-file {file}: there is no such file") from None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise MdmError(f"{where} holds no key: a line of letters, digits and signs without spaces")
    return key


def _welcome(url: str, name: str, with_key: bool, as_json: bool) -> None:
    """Say where the server is and how to try it."""
    if as_json:
        click.echo(json.dumps({"url": url, "model": name}))
        return
    body = json.dumps({"model": name, "prompt": "2+3=", "max_tokens": 8})
    key = f' -H "Authorization: Bearer ${KEY}"' if with_key else ""
    click.echo(
        f"{name} is served at {url} (API: {url}/v1). Try it:\n"
        f"  curl {url}/v1/completions -H 'Content-Type: application/json'{key} -d '{body}'",
        err=True,
    )
