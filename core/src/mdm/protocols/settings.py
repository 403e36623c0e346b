"""Decoding options: the one place where each of them is defined.

The command line's flags, the keys of a configuration file, the keyword arguments of ``mdm.decode`` and the table in
the documentation are made from the fields of ``Settings``. Adding an option takes one field here, and its use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from mdm.errors import MdmError, explain, suggest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

DEFAULT_SAMPLER = "info-gain"
DEFAULT_GEN_LENGTH = 64
DEFAULT_BLOCK_LENGTH = 32

Schedule = Literal["even", "linear", "cosine", "dream"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)

Count = Annotated[int, Field(ge=1)]
Length = Annotated[int, Field(ge=0)]
"""In tokens."""

Size = Count | Literal["auto"] | None
"""A number of rows, or as many as fit; None: no limit."""


def _token_range(value: Any) -> Any:
    """``"A:B"`` -> (A, B)"""
    if not isinstance(value, str):
        return value
    start, colon, stop = value.partition(":")
    if not (colon and start.strip().isdigit() and stop.strip().isdigit()):
        raise ValueError("expected A:B, the ids from A up to B, which is not among them")
    return int(start), int(stop)


TokenId = Annotated[int, Field(ge=0)]
TokenRange = Annotated[tuple[TokenId, TokenId], BeforeValidator(_token_range)]
"""Ids from the first up to the second, which is not among them; also written ``"A:B"``."""


def documented(default: Any, help: str, *, unset: str = "", metavar: str = "", **constraints: Any) -> Any:
    """A field that says what it is for.

    Args:
        help: what ``--help`` and the documentation say, without the default.
        unset: what the default None stands for.
        metavar: how ``--help`` writes the value, where its type does not tell.
        constraints: pydantic's, such as ``ge=0``.
    """
    return Field(default, description=help, json_schema_extra={"unset": unset, "metavar": metavar}, **constraints)


def option(
    default: Any, help: str, *, scope: Literal["row", "engine"], diffusion_only: bool = False, **details: Any
) -> Any:
    """A field of ``Settings``.

    Args:
        scope: whether rows that are decoded together may differ in it ("row"), or all rows of an engine share it.
        diffusion_only: whether it means nothing to an autoregressive model, which then refuses it.
        details: what ``documented`` takes.
    """
    field = documented(default, help, **details)
    field.json_schema_extra |= {"scope": scope, "diffusion_only": diffusion_only}
    return field


def option_with(name: str, default: Any, *, help: str = "", unset: str = "", **constraints: Any) -> Any:
    """The option ``name`` for a subclass of ``Settings``, with another default or type, or more to say."""
    field = Settings.model_fields[name]
    notes = _notes(field) | ({"unset": unset} if unset else {})
    return option(default, help or field.description or "", **notes, **constraints)


def _notes(field: FieldInfo) -> dict[str, Any]:
    """What ``documented`` and ``option`` noted of a field."""
    return dict(field.json_schema_extra) if isinstance(field.json_schema_extra, dict) else {}


class Settings(BaseModel):
    """How to decode, whatever the prompts, the model, the sampler and the cache."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # help needs the fields only

    seed: int = option(0, "Seed of the random draws.", scope="row")
    gen_length: Length | None = option(
        None, "Tokens to generate after the prompt; 0 fills the prompt's own masks.", scope="row",
        unset=f"{DEFAULT_GEN_LENGTH}",
    )  # fmt: skip
    steps: Count | None = option(
        None, "Steps of a whole generation, split over its blocks.", scope="row", diffusion_only=True,
        unset="one per token",
    )  # fmt: skip
    tokens_per_step: Count | None = option(
        None, "Tokens committed per step, instead of a number of steps.", scope="row", diffusion_only=True
    )
    schedule: Schedule = option(
        "even", "How a block's tokens are spread over its steps.", scope="row", diffusion_only=True
    )
    block_length: Count | None = option(
        None, "Tokens decoded together, block after block from the left.", scope="engine", diffusion_only=True,
        unset=f"the model's, or {DEFAULT_BLOCK_LENGTH}",
    )  # fmt: skip
    temperature: float = option(
        0.0, "Sampling temperature of the tokens; 0 takes the most probable one.", scope="row", ge=0,
        allow_inf_nan=False,
    )  # fmt: skip
    guidance: float = option(
        0.0, "Scale w of classifier-free guidance: logits u + (w + 1)(c - u). 0 is off.", scope="row",
        diffusion_only=True, allow_inf_nan=False,
    )  # fmt: skip
    eos_penalty: float = option(
        0.0, "Subtracted from the end token's logit wherever it is scored.", scope="row", allow_inf_nan=False
    )
    pad_penalty: float = option(
        0.0, "Subtracted from the padding token's logit; if that is also the end token, both are subtracted.",
        scope="row", allow_inf_nan=False,
    )  # fmt: skip
    stop_at_eos: bool = option(
        False, "Fill the masks behind the first end token with it.", scope="row", diffusion_only=True
    )
    eos_token_id: TokenId | None = option(None, "The end token's id.", unset="the model's", metavar="ID", scope="row")
    pad_token_id: TokenId | None = option(
        None, "The padding token's id.", unset="the model's", metavar="ID", scope="row"
    )
    allowed_tokens: list[TokenRange] | None = option(
        None, "Generate only ids from A up to, not including, B.", metavar="A:B", scope="row", min_length=1
    )
    suppressed_tokens: list[TokenId] = option([], "Ids that are never generated.", metavar="ID", scope="row")
    batch_size: Size = option(
        None, "Prompts decoded together, or auto: as many as fit in memory and make decoding faster.", scope="engine",
        unset="all",
    )  # fmt: skip
    max_rows: Size = option(
        "auto", "Sequences in one forward pass, candidates included, or auto: as many as fit in memory.",
        scope="engine", unset="no limit",
    )  # fmt: skip
    compile: bool = option(
        False, "Compile forward passes and scoring: a slow start, then faster. Changes no token.", scope="engine"
    )
    reuse_scores: bool = option(
        True, "Use a lookahead's scores in place of the next step's forward pass. Changes no token.", scope="engine",
        diffusion_only=True,
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_pace(self) -> Settings:
        if self.steps is not None and self.tokens_per_step is not None:
            raise ValueError("give either steps or tokens_per_step, not both")
        return self


DIFFUSION_ONLY: tuple[str, ...] = tuple(
    name for name, field in Settings.model_fields.items() if _notes(field)["diffusion_only"]
)
"""Options that mean nothing to an autoregressive model."""


def default_text(field: FieldInfo) -> str:
    """How help and documentation show a field's default; empty where there is nothing to say."""
    default = field.default
    if default is None:
        return str(_notes(field).get("unset", ""))
    if isinstance(default, list):
        return ", ".join(map(str, default))
    if isinstance(default, float):
        return f"{default:g}"
    return str(default) if isinstance(default, (int, str)) and not isinstance(default, bool) else ""


def help_text(field: FieldInfo) -> str:
    """A field's description and its default."""
    text, default = field.description or "", default_text(field)
    return f"{text.removesuffix('.')} (default: {default})." if default else text


def metavar(field: FieldInfo) -> str | None:
    """How a field's value is written on the command line; None: as its type says."""
    return _notes(field).get("metavar") or None


def scope(name: str) -> str:
    """``"row"`` or ``"engine"``: see ``option``."""
    return str(_notes(Settings.model_fields[name])["scope"])


def check_settings(options: Mapping[str, Any], others: tuple[str, ...] = ()) -> Settings:
    """``Settings`` from keyword arguments.

    Args:
        others: further names that the caller accepts, to be suggested for a misspelt one.

    Raises:
        MdmError: an unknown name, or a value that is not allowed.
    """
    for name in options:
        if name not in Settings.model_fields:
            near = suggest(name, [*Settings.model_fields, *others])
            raise MdmError(f"there is no option {name!r}.{near} There are: {', '.join(Settings.model_fields)}")
    try:
        return Settings.model_validate(dict(options))
    except ValidationError as error:
        raise MdmError(explain(error, "", Settings)) from None


def refuse_policy(name: str, asked: Mapping[str, Any]) -> None:
    """Refuse what only a diffusion model has.

    Args:
        name: of the autoregressive model.
        asked: what was set, by name.

    Raises:
        MdmError: something was; the message names the first of it.
    """
    for key, value in asked.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        raise MdmError(
            f"{key.replace('_', ' ')} {shown} does not apply to {name}: autoregressive models take no sampler, "
            "cache or schedule"
        )
