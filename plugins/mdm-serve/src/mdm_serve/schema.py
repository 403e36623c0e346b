"""Bodies of requests: which fields there are, which of them cannot be honoured, and what is decoded for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from mdm import registry
from mdm.data.documents import parse_json
from mdm.errors import MdmError, explain, suggest
from mdm.protocols.settings import LAYER, SESSIONS_OWN, Settings
from mdm.protocols.task import Message
from mdm.runs.presets import at_length
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from mdm_serve.errors import ApiError, refused

MAX_ROWS = 256
"""Rows of one request: its prompts times ``n``."""
MAX_TOKENS = 2**20
"""Tokens asked for after one prompt."""
MAX_STOPS = 16
"""Stop texts: more than OpenAI's 4, since evaluation harnesses send all that a task names."""

SETTINGS = tuple(name for name in Settings.model_fields if name not in (*SESSIONS_OWN, "gen_length"))
"""Decoding options that a body may hold under their own names; ``gen_length`` is called ``max_tokens`` there."""

Ids = Annotated[list[int], Field(min_length=1, fail_fast=True)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(_Model):
    """What a stream holds beside the text."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class ChatMessage(_Model):
    """One turn of a chat; the fields of an earlier answer that say nothing may come back with it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[dict[str, Any]], Field(min_length=1)]
    name: None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None


class Body(_Model):
    """What both endpoints take, beside the decoding options in ``SETTINGS``."""

    model: str | None = None
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    sampler: str | None = None
    sampler_options: dict[str, Any] | None = None
    cache: str | None = None
    cache_options: dict[str, Any] | None = None
    unconditional: str | Ids | None = None
    mdm_trace: bool | Literal["full"] | None = None
    # What only has a meaning that changes no answer, or is refused unless it says nothing (``NEUTRAL``).
    frequency_penalty: Any = None
    presence_penalty: Any = None
    logit_bias: Any = None


class _Chat(Body):
    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    logprobs: bool | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    top_logprobs: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    service_tier: Any = None
    store: Any = None
    web_search_options: Any = None


class _Completion(Body):
    prompt: (
        str | Ids | Annotated[list[str], Field(min_length=1, fail_fast=True)]
        | Annotated[list[Ids], Field(min_length=1, fail_fast=True)]
    )  # fmt: skip
    suffix: str | Ids | None = None
    logprobs: int | None = None
    echo: Any = None
    best_of: Any = None


_OPTIONS: dict[str, Any] = dict.fromkeys(SETTINGS, (Any, None))  # ``Settings`` checks their values
Chat = create_model("Chat", __base__=_Chat, **_OPTIONS)
"""The body of a chat."""
Completion = create_model("Completion", __base__=_Completion, **_OPTIONS)
"""The body of a completion."""

NEUTRAL: dict[str, tuple[tuple[Any, ...], str]] = {
    "frequency_penalty": ((0,), "no token is penalised for having been written"),
    "presence_penalty": ((0,), "no token is penalised for having been written"),
    "logit_bias": (({},), "see allowed_tokens, suppressed_tokens and eos_penalty"),
    "top_logprobs": ((0,), "only the chosen token's log-probability is known"),
    "tools": (([],), "the model calls no tools"),
    "tool_choice": (("none", "auto"), "the model calls no tools"),
    "functions": (([],), "the model calls no functions"),
    "function_call": (("none", "auto"), "the model calls no functions"),
    "response_format": (({"type": "text"},), "the answer is text"),
    "modalities": ((["text"],), "the answer is text"),
    "audio": ((), "the answer is text"),
    "prediction": ((), "write what is known into the prompt of /v1/completions, around its masks"),
    "reasoning_effort": (("none",), "the model has no such setting"),
    "verbosity": (("medium",), "the model has no such setting"),
    "service_tier": (("auto", "default"), "there is one tier"),
    "store": ((False,), "nothing is stored"),
    "web_search_options": ((), "nothing is searched"),
    "echo": ((False,), "the answer holds what was generated"),
}
"""Fields that cannot be honoured -> the values that ask for nothing (as None does), and a word on why."""

B = TypeVar("B", bound=Body)


@dataclass(frozen=True)
class Job:
    """What is decoded for a request."""

    prompts: tuple[str | Sequence[int] | tuple[Message, ...], ...]
    n: int
    """Rows of each prompt; their random draws have the keys 0 to n - 1."""
    suffix: str | Sequence[int] | None = None
    """What stands behind the masks."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of ``session.submit``, for every row."""
    logprobs: bool = False
    show_trace: bool | Literal["full"] = False
    stream: bool = False
    include_usage: bool = False
    fields: tuple[str, ...] = ()
    """Names in the body."""

    @property
    def rows(self) -> int:
        return len(self.prompts) * self.n

    @property
    def trace(self) -> bool | Literal["full"]:
        """What the session is to trace."""
        return "full" if self.logprobs else self.show_trace


def parse(schema: type[B], data: bytes, served: str) -> B:
    """A request's body.

    Args:
        served: the model's name.

    Raises:
        ApiError: it is no JSON within bounds, has an unknown field, or one that cannot be honoured.
    """
    try:
        value = parse_json(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not what it should be: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body should be a JSON object")
    if unknown := next((name for name in value if name not in schema.model_fields), None):
        near = suggest(unknown, schema.model_fields)
        known = ", ".join(schema.model_fields)
        raise ApiError(400, f"{unknown[:60]}: there is no such name.{near} There are: {known}", param=unknown[:60])
    try:
        body = schema.model_validate(value)
    except ValidationError as error:
        raise ApiError(400, explain(error, "", schema), param=str(error.errors()[0]["loc"][0])) from None
    if body.model not in (None, served):
        message = f"there is no model {body.model!r} here: the server has {served!r}"
        raise ApiError(404, message, param="model", code="model_not_found")
    for name, (values, why) in NEUTRAL.items():
        if name in value and value[name] is not None and not any(_same(value[name], neutral) for neutral in values):
            raise ApiError(400, f"{name} cannot be honoured: {why}; leave it out", param=name)
    return body


def _same(value: Any, neutral: Any) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def chat_job(body: Any, defaults: Mapping[str, Any]) -> Job:
    """What a chat asks for.

    Args:
        body: a ``Chat``.
        defaults: arguments of ``mdm.decode`` that hold where the body says nothing.

    Raises:
        ApiError: a field that says nothing sensible.
    """
    if None not in (body.max_tokens, body.max_completion_tokens) and body.max_tokens != body.max_completion_tokens:
        raise ApiError(400, "max_tokens and max_completion_tokens differ: give one", param="max_tokens")
    messages = tuple(_message(i, message) for i, message in enumerate(body.messages))
    length = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    return _job(body, defaults, (messages,), length, logprobs=bool(body.logprobs))


def completion_job(body: Any, defaults: Mapping[str, Any]) -> Job:
    """What a completion asks for; arguments and errors as ``chat_job``'s.

    Args:
        body: a ``Completion``.
    """
    if body.logprobs not in (None, 0):
        message = f"logprobs={body.logprobs}: only the chosen token's log-probability is known, which is logprobs=0"
        raise ApiError(400, message, param="logprobs")
    if not (body.best_of is None or (isinstance(body.best_of, int) and body.best_of in (1, body.n or 1))):
        raise ApiError(400, f"best_of={body.best_of} cannot be honoured: all n answers are given", param="best_of")
    several = isinstance(body.prompt, list) and not isinstance(body.prompt[0], int)
    prompts = tuple(body.prompt) if several else (body.prompt,)
    return _job(body, defaults, prompts, body.max_tokens, body.suffix or None, logprobs=body.logprobs is not None)


def _message(number: int, message: ChatMessage) -> Message:
    role: Any = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return Message(role, message.content)
    texts = []
    for i, part in enumerate(message.content):
        if set(part) != {"type", "text"} or part["type"] != "text" or not isinstance(part["text"], str):
            where = f"messages[{number}].content[{i}]"
            raise ApiError(
                400, f'{where} should be {{"type": "text", "text": …}}: there are texts alone', param="messages"
            )
        texts.append(part["text"])
    return Message(role, tuple(texts))


def _job(
    body: Body, defaults: Mapping[str, Any], prompts: tuple[Any, ...], length: int | None, suffix: Any = None, *,
    logprobs: bool,
) -> Job:  # fmt: skip
    n = body.n or 1
    if n * len(prompts) > MAX_ROWS:
        raise ApiError(400, f"{len(prompts)} prompts, n={n}: at most {MAX_ROWS} rows a request", param="n")
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream: true", param="stream_options")
    options = _options(body)
    if length is not None:
        options["gen_length"] = length
    policy = {name: getattr(body, name) for name in ("sampler", "sampler_options", "cache", "cache_options")}
    for kind in ("sampler", "cache"):
        _refuse_files(kind, policy[kind] or defaults.get(kind), policy[f"{kind}_options"])
    arguments = _laid_over(defaults, options) | {name: value for name, value in policy.items() if value is not None}
    if body.unconditional is not None:
        arguments["unconditional"] = body.unconditional
    elif "unconditional" in defaults and options.get("guidance", defaults.get("guidance")):
        arguments["unconditional"] = defaults["unconditional"]
    return Job(
        prompts, n, suffix, arguments, logprobs, body.mdm_trace or False, bool(body.stream),
        bool(body.stream_options and body.stream_options.include_usage), tuple(body.model_fields_set),
    )  # fmt: skip


def _options(body: Body) -> dict[str, Any]:
    """The body's decoding options, each by itself as it should be; strict: a number in quotes is none."""
    options = {name: value for name in SETTINGS if (value := getattr(body, name)) is not None}
    if isinstance(ranges := options.get("allowed_tokens"), list):
        options["allowed_tokens"] = [tuple(bounds) if isinstance(bounds, list) else bounds for bounds in ranges]
    if isinstance(stops := options.get("stop"), list) and len(stops) > MAX_STOPS:
        raise ApiError(400, f"stop has {len(stops)} texts: at most {MAX_STOPS}", param="stop")
    try:
        Settings.model_validate(options, strict=True, context=LAYER)
    except ValidationError as error:
        raise refused(MdmError(explain(error, "", Settings)), options) from None
    return options


def _laid_over(defaults: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A request's options, and those that follow from them.

    Another length keeps the server's pace. At temperature 0, which every client may ask for, the likeliest token is
    among the likeliest, however few these are.
    """
    laid = dict(options)
    if options.get("temperature") == 0 and options.get("score_after", "raw") == "raw":
        laid = {name: value for name, value in options.items() if name not in ("top_p", "top_k")}
    length = {name: defaults[name] for name in ("gen_length", "steps", "block_length") if defaults.get(name)}
    asked = at_length(length, options.get("gen_length"))
    if asked.get("steps") != length.get("steps") and not {"steps", "tokens_per_step"} & set(options):
        laid |= {"tokens_per_step": 1} if asked["steps"] is None else {"steps": asked["steps"]}
    if asked.get("block_length") != length.get("block_length"):
        laid.setdefault("block_length", asked["block_length"])
    return laid


def _refuse_files(kind: str, name: str | None, options: Mapping[str, Any] | None) -> None:
    """Refuse a plugin's options that name files: those of the server are not for its clients to choose."""
    if name is None or not options:
        return
    try:
        schema = registry.resolve(kind, name).Options
    except MdmError as error:
        raise ApiError(400, str(error), param=kind) from None
    for option in options:
        known = schema.model_fields.get(option)
        if known is not None and Path in (known.annotation, *get_args(known.annotation)):
            message = f"{kind}_options.{option} names a file of the server: it is set where that is started (-o)"
            raise ApiError(400, message, param=f"{kind}_options")
