"""What a served model can be asked for, in words and menus: the data of the page."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from mdm import registry
from mdm.cli.plugins import options_table
from mdm.errors import MdmError
from mdm.protocols.preset import Preset
from mdm.protocols.task import MASK
from mdm.runs import presets

from mdm_serve.schema import SETTINGS

if TYPE_CHECKING:
    from mdm.models.model import Model
    from pydantic import BaseModel


def describe(name: str, model: Model, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A served model, and every sampler, cache and preset that a request to it may name.

    Args:
        name: what the model is called in requests.
        defaults: fields of a request's body -> what one that leaves them out gets; None where that depends.
    """
    diffusion = model.spec.attention != "causal"
    return {
        "model": name,
        "family": model.spec.family,
        "device": str(model.device),
        "mask": MASK,
        "diffusion": diffusion,
        "chat": bool(getattr(model.tokenizer, "chat_template", None) or model.chat_template),
        "defaults": dict(defaults),
        "samplers": _plugins("sampler") if diffusion else [],
        "caches": _plugins("cache") if diffusion else [],
        "presets": _presets(model.spec.family) if diffusion else [],
    }


BODY = {name: name for name in (*SETTINGS, "sampler", "cache")} | {"gen_length": "max_tokens"}
"""Settings of a configuration that a request may have -> the field of its body."""


def _plugins(kind: str) -> list[dict[str, Any]]:
    """Name, help and options of each plugin of a kind that loads; no request can have another."""
    found = []
    for name in registry.names(kind):
        try:
            plugin = registry.resolve(kind, name)
        except MdmError:
            continue
        found.append({"name": name, "help": _first_line(inspect.getdoc(plugin)), "options": _options(plugin.Options)})
    return found


def _options(schema: type[BaseModel]) -> list[dict[str, Any]]:
    return [
        {
            "name": option["name"],
            "type": option["type"],
            "default": option["default"],
            "help": " ".join(option["description"].split()),
            "choices": _choices(schema.model_fields[option["name"]].annotation),
        }
        for option in options_table(schema)
    ]


def _choices(annotation: Any) -> list[Any] | None:
    """The values that an option can have, where they are few; None where they are not."""
    if annotation is bool:
        return [False, True]
    return list(get_args(annotation)) if get_origin(annotation) is Literal else None


def _presets(family: str) -> list[dict[str, Any]]:
    """The presets for a family, as fields of a request's body."""
    found = []
    for name in registry.names("preset"):
        try:
            preset = registry.resolve("preset", name)
            settings = _body(preset)
        except MdmError:
            continue
        if settings and family in (preset.families or (family,)):
            found.append({"name": name, "help": _first_line(preset.about), "settings": settings})
    return found


def _body(preset: Preset) -> dict[str, Any]:
    """What a preset sets for a prompt, named as in a request's body; not what a server has once for all requests."""
    settings, options = presets.layer(preset.about, preset, None)
    body = {BODY[key]: value for key, value in settings.items() if key in BODY}
    for kind in ("sampler", "cache"):
        name = str(body.get(kind))
        if of_plugin := options.get(f"{kind}.{name}", options.get(name)):
            body[f"{kind}_options"] = of_plugin
    return body


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]
