"""Options of plugins: pydantic models that refuse unknown names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdm.errors import MdmError, blamed, explain
from pydantic import BaseModel, ConfigDict, ValidationError


class NoOptions(BaseModel):
    """The options of a plugin that has none, and the base class of all ``Options``: an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_options(plugin: str, schema: type[BaseModel], raw: Mapping[str, Any]) -> BaseModel:
    """An instance of a plugin's ``Options``.

    Raises:
        MdmError: one line with the option, its value and what is allowed.
    """
    with blamed(f"options of {plugin}"):
        try:
            options = schema.model_validate(dict(raw))
        except ValidationError as error:
            raise MdmError(explain(error, f"option {plugin}.", schema)) from error
        options.model_dump(mode="json")  # as a run's configuration holds them
        return options
