"""Options of plugins: pydantic models that refuse unknown names, and numbers that nothing can be computed with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mdm.errors import MdmError, blamed, explain
from pydantic import BaseModel, ConfigDict, ValidationError

INT64 = range(-(2**63), 2**63)
"""What keys of random draws, and numbers in tensors, fit into."""

SMALLEST, LARGEST = 1e-30, 1e30
"""Magnitudes of numbers by which scores, in single precision, can be multiplied and divided."""


class NoOptions(BaseModel):
    """The options of a plugin that has none, and the base class of all ``Options``: an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def computable(value: Any) -> Any:
    """``value``, which is a number that can be computed with, or holds no other numbers.

    Raises:
        ValueError: it is not finite, too large, or too small without being 0.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("should be a finite number")
    if isinstance(value, float) and value and not SMALLEST <= abs(value) <= LARGEST:
        raise ValueError(f"should be 0, or of a magnitude from {SMALLEST:g} to {LARGEST:g}")
    if isinstance(value, int) and value not in INT64:
        raise ValueError("it does not fit into 64 bits")
    if isinstance(value, (Mapping, BaseModel)):
        value_of = dict(value)
        computable([*value_of.keys(), *value_of.values()])
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            computable(item)
    return value


def check_numbers(plugin: str, options: BaseModel) -> None:
    """Refuse numbers of an instance of a plugin's ``Options`` that cannot be computed with, whatever their fields say.

    Raises:
        MdmError: one line with the option and its value.
    """
    for name, value in options:
        try:
            computable(value)
        except ValueError as error:
            raise MdmError(f"option {plugin}.{name}={value}: {error}") from None


def check_options(plugin: str, schema: type[BaseModel], raw: Mapping[str, Any]) -> BaseModel:
    """An instance of a plugin's ``Options``.

    Raises:
        MdmError: one line with the option, its value and what is allowed.
    """
    if not isinstance(raw, Mapping):
        raise MdmError(f"the options of {plugin} are {raw!r}: they should be a mapping from names to values")
    with blamed(f"options of {plugin}"):
        try:
            options = schema.model_validate(dict(raw))
        except ValidationError as error:
            raise MdmError(explain(error, f"option {plugin}.", schema)) from error
        check_numbers(plugin, options)
        options.model_dump(mode="json")  # as a run's configuration holds them
        return options
