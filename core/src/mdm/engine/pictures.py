"""Settings of pictures: which options they leave open, and what these are for one that is drawn in one block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from mdm.errors import MdmError
from mdm.models.layout import Layout
from mdm.protocols.model import ModelSpec
from mdm.protocols.settings import Settings

DEFAULT_STEPS = 50
"""Steps of a picture, or as many as it has codes if these are fewer."""

TEXT_ONLY = (
    "gen_length", "stop", "stop_at_eos", "eos_penalty", "pad_penalty", "eos_rank", "eos_token_id", "pad_token_id"
)  # fmt: skip
"""Options that mean nothing where no token ends an answer, and whose length is the model's."""

S = TypeVar("S", bound=Settings)


def for_pictures(settings: S, layouts: Sequence[Layout], spec: ModelSpec) -> S:
    """The settings with which prompts are decoded, which for texts are those given.

    Pictures hold image codes alone, are one block and follow the schedule ``maskgit``, unless the user says otherwise.

    Raises:
        MdmError: prompts ask for texts and for pictures, or an option does not apply to pictures.
    """
    grids = [layout.grid for layout in layouts]
    sizes = [rows * columns for rows, columns in filter(None, grids)]
    if not sizes:
        return settings
    if None in grids:
        raise MdmError("the prompts ask for pictures and for texts: decode them in two calls")
    first, end = _codes(spec)
    for number, layout in enumerate(layouts):
        _check_layout(number, layout, first, end, spec.mask_id)
    if len(set(sizes)) > 1:  # what is chosen below would depend on a picture's neighbours
        raise MdmError(f"the prompts ask for pictures of {sizes[0]} and of other numbers of codes: decode them apart")
    for name in TEXT_ONLY:
        if getattr(settings, name) != Settings.model_fields[name].default:
            raise MdmError(f"{name} does not apply to pictures: leave it out")
    chosen: dict[str, Any] = {"allowed_tokens": [(first, end)], "block_length": max(sizes), "schedule": "maskgit"}
    if settings.steps is None and settings.tokens_per_step is None:
        chosen["steps"] = min(DEFAULT_STEPS, *sizes)
    for start, stop in settings.allowed_tokens or ():
        if start < first or stop > end:
            raise MdmError(f"allowed_tokens {start}:{stop}: a picture holds image codes alone, which are {first}:{end}")
    return settings.model_copy(update={name: v for name, v in chosen.items() if getattr(settings, name) is None})


def _codes(spec: ModelSpec) -> tuple[int, int]:
    """The range of the tokens that are image codes."""
    if spec.image_offset is None:
        raise MdmError(f"nothing says where the image codes of this {spec.family} model begin")
    return spec.image_offset, spec.image_offset + spec.image_codes


def _check_layout(number: int, layout: Layout, first: int, end: int, mask_id: int) -> None:
    """Refuse a picture whose codes and masks do not fill its grid, or are no codes."""
    assert layout.grid is not None
    rows, columns = layout.grid
    given = layout.tokens[layout.context :]
    slots = len(given) + (layout.gen_length or 0)
    if slots != rows * columns:
        raise MdmError(
            f"prompt {number}: a grid of {rows} x {columns} has {rows * columns} codes, and behind the context there "
            f"are {slots} codes and masks"
        )
    if wrong := [token for token in given if token != mask_id and not first <= token < end]:
        raise MdmError(f"prompt {number}: token {wrong[0]} of the picture is neither a mask nor a code, {first}:{end}")
