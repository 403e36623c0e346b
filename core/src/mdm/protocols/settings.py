"""Decoding options: the one place where each of them is defined.

The command line's flags, the keys of a configuration file and the keyword arguments of ``mdm.decode`` are made from
the fields of ``Settings``. Adding an option is one field here, and its use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from mdm.errors import MdmError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Schedule = Literal["even", "linear", "cosine", "dream"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)

Size = Annotated[int, Field(ge=1)] | Literal["auto"]
"""A number of rows, or as many as fit."""


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


def option(
    default: Any, help: str, *, scope: Literal["row", "engine"], diffusion_only: bool = False, **bounds: Any
) -> Any:
    """A field of ``Settings``.

    Args:
        help: what ``--help`` and the documentation say, without the default.
        scope: whether rows decoded together may differ in it ("row"), or all rows of an engine share it.
        diffusion_only: whether it means nothing to an autoregressive model, which then refuses it.
        bounds: pydantic's, such as ``ge=0``.
    """
    return Field(
        default, description=help, json_schema_extra={"scope": scope, "diffusion_only": diffusion_only}, **bounds
    )


class Settings(BaseModel):
    """How to decode, whatever the prompts, the model, the sampler and the cache."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = option(0, "Seed of the random draws.", scope="row")
    gen_length: int | None = option(
        None, "Tokens to generate after the prompt; 0 fills the prompt's own masks (default: 64).", scope="row", ge=0
    )
    steps: int | None = option(
        None, "Steps of a whole generation, split over its blocks (default: one per token).", scope="row",
        diffusion_only=True, ge=1,
    )  # fmt: skip
    tokens_per_step: int | None = option(
        None, "Tokens committed per step, instead of --steps.", scope="row", diffusion_only=True, ge=1
    )
    schedule: Schedule = option(
        "even", "How a block's tokens are spread over its steps.", scope="row", diffusion_only=True
    )
    block_length: int | None = option(
        None, "Tokens decoded together, left to right; the grid of a block-causal model (default: the model's, or 32).",
        scope="engine", diffusion_only=True, ge=1,
    )  # fmt: skip
    temperature: float = option(
        0.0, "Temperature of the token draw; 0 takes the likeliest.", scope="row", ge=0, allow_inf_nan=False
    )
    guidance: float = option(
        0.0, "Scale w of classifier-free guidance, logits u + (w + 1)(c - u); 0 is off.", scope="row",
        diffusion_only=True, allow_inf_nan=False,
    )  # fmt: skip
    eos_penalty: float = option(
        0.0, "Taken off the end token's logit wherever it is scored.", scope="row", allow_inf_nan=False
    )
    pad_penalty: float = option(
        0.0, "Taken off the padding token's logit; where both are one token the penalties add up.", scope="row",
        allow_inf_nan=False,
    )  # fmt: skip
    stop_at_eos: bool = option(
        False, "Fill the masks behind the first end token with it.", scope="row", diffusion_only=True
    )
    eos_token_id: TokenId | None = option(None, "The end token, in place of the model's own.", scope="row")
    pad_token_id: TokenId | None = option(None, "The padding token, in place of the model's own.", scope="row")
    allowed_tokens: list[TokenRange] | None = option(
        None, "Draw only ids from A up to, not including, B (repeatable).", scope="row", min_length=1
    )
    suppressed_tokens: list[TokenId] = option([], "Never draw this id (repeatable).", scope="row")
    batch_size: Size | None = option(
        None, "Prompts decoded together, or auto: as many as fit and make decoding faster (default: all).",
        scope="engine",
    )  # fmt: skip
    max_rows: Size | None = option(
        "auto", "Canvases in one forward, candidates included; auto: as many as fit.", scope="engine"
    )
    compile: bool = option(
        False, "Compile forwards and scoring: slow to begin, then faster; decides the same.", scope="engine"
    )
    reuse_scores: bool = option(
        True, "Let the scores of a lookahead stand for the next step's forward; decides the same.", scope="engine",
        diffusion_only=True,
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_pace(self) -> Settings:
        if self.steps is not None and self.tokens_per_step is not None:
            raise ValueError("give either steps or tokens_per_step, not both")
        return self


DIFFUSION_ONLY: tuple[str, ...] = tuple(
    name
    for name, field in Settings.model_fields.items()
    if isinstance(field.json_schema_extra, dict) and field.json_schema_extra["diffusion_only"]
)
"""Options that mean nothing to an autoregressive model."""


def refuse_policy(name: str, asked: Mapping[str, Any]) -> None:
    """Refuse what only a diffusion model has.

    Raises:
        MdmError: one of ``asked`` is set; the message names it.
    """
    for key, value in asked.items():
        if value:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            raise MdmError(
                f"{key.replace('_', ' ')} {shown} does not apply to {name}: autoregressive models take no sampler, "
                "cache or schedule"
            )
