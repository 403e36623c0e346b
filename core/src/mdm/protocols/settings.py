"""Decoding options: the one place where each of them is defined.

The command line's flags, the keys of a configuration file, the keyword arguments of ``mdm.decode`` and the table in
the documentation are made from the fields of ``Settings``. Adding an option takes one field here, and its use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from mdm.errors import MdmError, explain, suggest
from mdm.protocols.options import INT64 as INT64, computable
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo

DEFAULT_SAMPLER = "info-gain"
DEFAULT_GEN_LENGTH = 64
DEFAULT_BLOCK_LENGTH = 32

Schedule = Literal[
    "even", "linear", "cosine", "dream",
    "maskgit", "maskgit-linear", "maskgit-pow0.5", "maskgit-pow2", "maskgit-sigmoid",
]  # fmt: skip
ScoreAfter = Literal["raw", "tempered"]
EosRank = Literal["as-scored", "last"]
SCHEDULES: tuple[str, ...] = get_args(Schedule)
Scope = Literal["row", "engine", "session"]

LAYER = "layer"
"""The context of a validation of settings to which others are added yet: what needs those is not checked."""

Int64 = Annotated[int, AfterValidator(computable)]
Number = Annotated[float, Field(allow_inf_nan=False), AfterValidator(computable)]
Count = Annotated[int, Field(ge=1), AfterValidator(computable)]
Length = Annotated[int, Field(ge=0), AfterValidator(computable)]  # in tokens

MAX_LOGIT = 1e9
"""The largest penalty, and scale of guidance: what becomes of logits is then far from what overflows."""


def _scale(value: float) -> float:
    if abs(value) > MAX_LOGIT:
        raise ValueError(f"should be from {-MAX_LOGIT:g} to {MAX_LOGIT:g}")
    return value


Scale = Annotated[Number, AfterValidator(_scale)]

Size = Count | Literal["auto"] | None
"""A number of rows, or as many as fit; None: no limit."""


def _token_range(value: Any) -> Any:
    """``"A:B"`` -> (A, B)"""
    if not isinstance(value, str):
        return value
    start, _, stop = value.partition(":")
    if not (start.strip().isdigit() and stop.strip().isdigit()):
        raise ValueError("expected A:B, the ids from A up to B, which is not among them")
    return int(start), int(stop)


Texts = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
]
"""One text or several."""

TokenId = Annotated[int, Field(ge=0), AfterValidator(computable)]
TokenRange = Annotated[tuple[TokenId, TokenId], BeforeValidator(_token_range)]
"""Ids from the first up to the second, which is not among them; also written ``"A:B"``."""


def documented(
    default: Any, help: str, *, unset: str = "", metavar: str = "", scope: Scope = "row", diffusion_only: bool = False,
    **details: Any,
) -> Any:  # fmt: skip
    """A field that says what it is for.

    Args:
        help: what ``--help`` and the documentation say, without the default.
        unset: what the default None stands for.
        metavar: how ``--help`` writes the value, where its type does not tell.
        scope: whether rows that are decoded together may differ in it ("row"), all rows of an engine share it, or all
            engines of a session do.
        diffusion_only: whether it means nothing to an autoregressive model, which then refuses it.
        details: constraints, such as ``ge=0``.
    """
    notes: dict[str, Any] = {"unset": unset, "metavar": metavar, "scope": scope, "diffusion_only": diffusion_only}
    return Field(default, description=help, json_schema_extra=notes, **details)


def option_with(name: str, default: Any, *, help: str = "", unset: str = "", **constraints: Any) -> Any:
    """The option ``name`` for a subclass of ``Settings``, with another default or type, or more to say."""
    field = Settings.model_fields[name]
    notes = noted(field) | ({"unset": unset} if unset else {})
    return documented(default, help or field.description or "", **notes, **constraints)


def noted(field: FieldInfo) -> dict[str, Any]:
    """What ``documented`` noted of a field: unset, metavar, scope, diffusion_only."""
    return dict(field.json_schema_extra) if isinstance(field.json_schema_extra, dict) else {}


class Settings(BaseModel):
    """How to decode, whatever the prompts, the model, the sampler and the cache."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # help needs the fields only

    seed: Int64 = documented(0, "Seed of the random draws.")
    gen_length: Length | None = documented(
        None, "Tokens to generate after the prompt; 0 fills the prompt's own masks.", unset=str(DEFAULT_GEN_LENGTH)
    )
    steps: Count | None = documented(
        None,
        "Steps of a whole generation, split over its blocks; of more blocks than steps some are joined.",
        diffusion_only=True,
        unset="one per token; of a picture 50",
    )
    tokens_per_step: Count | None = documented(
        None, "Tokens committed per step, instead of a number of steps.", diffusion_only=True
    )
    schedule: Schedule | None = documented(
        None, "How a block's tokens are spread over its steps.", diffusion_only=True, unset="even; maskgit for pictures"
    )
    block_length: Count | None = documented(
        None, "Tokens decoded together, block after block.",
        scope="engine", diffusion_only=True, unset="the model's, or 32; of a picture all",
    )  # fmt: skip
    temperature: Number = documented(0.0, "Sampling temperature; 0 takes the most probable token.", ge=0)
    top_p: Number = documented(
        1.0, "Draw from the likeliest tokens that make up this probability, at the temperature.", gt=0, le=1
    )
    top_k: Count | None = documented(None, "Draw from that many likeliest tokens.", unset="all")
    score_after: ScoreAfter = documented(
        "raw", "Confidence and entropy are the model's own, or those after temperature, top-p and top-k.",
        diffusion_only=True,
    )  # fmt: skip
    guidance: Scale = documented(0.0, "Scale w of classifier-free guidance, u + (w + 1)(c - u).", diffusion_only=True)
    eos_penalty: Scale = documented(0.0, "Subtracted from the logit of each end token.")
    pad_penalty: Scale = documented(0.0, "Subtracted from the padding token's logit, which may be the end token's.")
    eos_rank: EosRank = documented(
        "as-scored",
        "Or last: an end token is committed only where nothing else is left to commit.",
        diffusion_only=True,
    )
    stop_at_eos: bool = documented(
        False,
        "Fill the masks behind the first end token with the model's first one; where a sampler edits its block, "
        "once it leaves that.",
        scope="engine",
        diffusion_only=True,
    )
    eos_token_id: TokenId | None = documented(
        None, "The only end token's id.", unset="the model's", metavar="ID", scope="engine"
    )
    stop: Texts = documented(
        [], "Text before which the answer's text ends, special tokens included; its tokens stay.", metavar="TEXT"
    )
    pad_token_id: TokenId | None = documented(None, "The padding token's id.", unset="the model's", metavar="ID")
    allowed_tokens: list[TokenRange] | None = documented(
        None, "Generate only ids from A up to, not including, B.", metavar="A:B", scope="engine", min_length=1
    )
    suppressed_tokens: list[TokenId] = documented([], "Ids that are never generated.", metavar="ID", scope="engine")
    batch_size: Size = documented(
        None,
        "Prompts decoded together, or auto: as many as fit and make decoding faster.",
        scope="session",
        unset="all",
    )
    max_rows: Size = documented(
        "auto", "Sequences in one forward pass, candidates included, or auto: as many as fit.", scope="session"
    )
    compile: bool = documented(
        False, "Compile forward passes and scoring: slow to start, then faster.", scope="session"
    )
    graphs: bool = documented(
        True, "On a GPU, replay forward passes whose shapes repeat as CUDA graphs.", scope="session"
    )
    reuse_scores: bool = documented(
        True, "Let a lookahead's scores stand for the next step's forward pass.", scope="session", diffusion_only=True
    )

    @property
    def truncates(self) -> bool:
        """Whether some tokens are never drawn, because they are not among the likeliest."""
        return self.top_p < 1 or self.top_k is not None

    @property
    def tempered(self) -> bool:
        """Whether confidence and entropy are those of the distribution that tokens are drawn from."""
        return self.score_after == "tempered"

    @model_validator(mode="after")
    def _says_something(self, info: ValidationInfo) -> Settings:
        if info.context != LAYER and self.temperature == 0 and self.tempered != self.truncates:
            name = "score_after tempered" if self.tempered else "top_p" if self.top_p < 1 else "top_k"
            other = "top_p or top_k" if self.tempered else "score_after tempered"
            raise ValueError(f"{name} changes nothing at temperature 0: set a temperature, or {other}")
        return self

    @model_validator(mode="after")
    def _one_pace(self) -> Settings:
        if self.steps is not None and self.tokens_per_step is not None:
            raise ValueError("give either steps or tokens_per_step, not both")
        return self


SESSIONS_OWN = tuple(name for name, field in Settings.model_fields.items() if noted(field)["scope"] == "session")
"""Options that all requests of a session share."""

ENGINES_OWN = tuple(name for name, field in Settings.model_fields.items() if noted(field)["scope"] == "engine")
"""Options in which requests may differ, that are decoded by different engines then."""

DIFFUSION_ONLY = tuple(name for name, field in Settings.model_fields.items() if noted(field)["diffusion_only"])
"""Options that mean nothing to an autoregressive model."""


def diffusion_only(settings: Settings) -> dict[str, Any]:
    """Those of ``DIFFUSION_ONLY`` that are not at their default, with their values."""
    fields = type(settings).model_fields
    return {name: value for name in DIFFUSION_ONLY if (value := getattr(settings, name)) != fields[name].default}


def default_text(field: FieldInfo) -> str:
    """How help and documentation show a field's default; empty where there is nothing to say."""
    default = field.default
    if default is None:
        return str(noted(field).get("unset", ""))
    if isinstance(default, list):
        return ", ".join(map(str, default))
    if isinstance(default, float):
        return f"{default:g}"
    return str(default) if isinstance(default, (int, str)) and not isinstance(default, bool) else ""


def help_text(field: FieldInfo) -> str:
    """A field's description and its default."""
    text, default = field.description or "", default_text(field)
    return f"{text.removesuffix('.')} (default: {default})." if default else text


def check_settings(options: Mapping[str, Any], others: tuple[str, ...] = ()) -> Settings:
    """``Settings`` from keyword arguments; a misspelt name may be one of ``others`` too, which the caller accepts.

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
    """Refuse what only a diffusion model has, for the autoregressive model ``name``.

    Raises:
        MdmError: something was asked; the message names the first of it.
    """
    for key, value in asked.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        raise MdmError(
            f"{key.replace('_', ' ')} {shown} does not apply to {name}: autoregressive models take no sampler, "
            "cache or schedule"
        )
