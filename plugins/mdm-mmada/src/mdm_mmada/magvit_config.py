"""What a config.json says of a MAGVIT-v2 network: its sizes, or nothing, which means the published ones.

``showlab/magvitv2`` names its class there and nothing else; smaller networks give arguments of encoder and decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from mdm.errors import MdmError, explain
from mdm.protocols.options import NoOptions
from pydantic import ConfigDict, Field, ValidationError, model_validator

CLASS = "MAGVITv2"
Schema = TypeVar("Schema", bound=NoOptions)
Count = Annotated[int, Field(ge=1, le=64)]
Levels = Annotated[list[Count], Field(min_length=1, max_length=8)]


class Sizes(NoOptions):
    """The sizes of an encoder or a decoder, under the names of the published arguments.

    Levels are counted from the finest, in the decoder too.
    """

    model_config = ConfigDict(strict=True)

    ch: int = Field(128, ge=32, le=2048, multiple_of=32)
    """Channels that ``ch_mult`` multiplies; a group norm makes 32 groups of them."""
    ch_mult: Levels
    num_res_blocks: Levels
    z_channels: Count = 13
    """Channels of the latent picture, each of which is one bit of a code."""
    resolution: int = Field(256, ge=1)
    """The width of a picture by which ``attn_resolutions`` are understood; pictures may have any other."""
    in_ch: Literal[3] = 3
    out_ch: Literal[3] = 3
    attn_resolutions: list[int] = [5]
    dropout: float = Field(0.0, ge=0, le=1)  # of training
    double_z: Literal[False] = False

    @model_validator(mode="after")
    def _can_be_built(self) -> Sizes:
        if len(self.ch_mult) != len(self.num_res_blocks):
            raise ValueError(
                f"ch_mult has {len(self.ch_mult)} levels and num_res_blocks has {len(self.num_res_blocks)}"
            )
        widths = {self.resolution // 2**level for level in range(len(self.ch_mult))}
        if reached := sorted(widths & set(self.attn_resolutions)):
            raise ValueError(f"attn_resolutions asks for attention at width {reached[0]}, and only the middle has one")
        return self

    @property
    def channels(self) -> list[int]:
        """The channels of each level."""
        return [self.ch * factor for factor in self.ch_mult]


class EncoderSizes(Sizes):
    """The published encoder's sizes, where a config.json gives no others."""

    ch_mult: Levels = [1, 2, 2, 4, 4]
    num_res_blocks: Levels = [4, 3, 4, 3, 4]


class DecoderSizes(Sizes):
    """The published decoder's sizes, where a config.json gives no others."""

    ch_mult: Levels = [1, 1, 2, 2, 4]
    num_res_blocks: Levels = [4, 4, 3, 4, 3]


class _Arguments(NoOptions):
    """The arguments of the published class, as a config.json holds them."""

    model_config = ConfigDict(strict=True)

    encoder: dict[str, Any] = {}
    decoder: dict[str, Any] = {}
    codebook_dim: int = Field(13, ge=1, le=18)


@dataclass(frozen=True)
class MagvitConfig:
    """The sizes of a network; a code has ``bits`` bits."""

    encoder: Sizes
    decoder: Sizes
    bits: int

    @property
    def down_factor(self) -> int:
        """Pixels of a picture's side for one code."""
        return int(2 ** (len(self.encoder.ch_mult) - 1))


def magvit_config(config: Mapping[str, Any], where: str) -> MagvitConfig:
    """The network that a config.json, read from ``where``, asks for.

    Raises:
        MdmError: it is no MAGVIT-v2, a key is unknown or has a value that cannot be built, or its parts do not fit.
    """
    if config.get("_class_name") != CLASS:
        kind = config.get("_class_name") or config.get("model_type") or "unnamed"
        raise MdmError(f"{where} is of a {kind!r} model and not of a picture tokenizer ({CLASS!r} as its _class_name)")
    # What begins so says which library wrote the file, in which version.
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    arguments = _validated(_Arguments, given, f"{where}: ")
    encoder = _validated(EncoderSizes, arguments.encoder, f"{where}: encoder.")
    decoder = _validated(DecoderSizes, arguments.decoder, f"{where}: decoder.")
    for name, part in (("encoder", encoder), ("decoder", decoder)):
        if part.z_channels != arguments.codebook_dim:
            raise MdmError(
                f"{where}: {name}.z_channels={part.z_channels} does not fit codebook_dim={arguments.codebook_dim}: "
                "a code has one bit for each channel"
            )
    if len(encoder.ch_mult) != len(decoder.ch_mult):
        raise MdmError(
            f"{where}: encoder.ch_mult has {len(encoder.ch_mult)} levels and decoder.ch_mult has "
            f"{len(decoder.ch_mult)}: a picture would come back in another size"
        )
    return MagvitConfig(encoder, decoder, arguments.codebook_dim)


def _validated(schema: type[Schema], values: Mapping[str, Any], where: str) -> Schema:
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise MdmError(explain(error, where, schema)) from None
