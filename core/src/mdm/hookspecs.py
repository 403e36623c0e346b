"""What cuts across kinds: anybody may watch a decoding without being a sampler, a cache or a model.

A package announces a hook by an entry point of the group ``mdm.hooks`` that names a module or an object with
methods marked ``@mdm.hookspecs.hookimpl``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import pluggy
from mdm import registry
from mdm.errors import MdmError

hookspec = pluggy.HookspecMarker("mdm")
hookimpl = pluggy.HookimplMarker("mdm")


class Hooks:
    """The calls a hook may answer. What it returns is ignored."""

    @hookspec
    def on_step(self, event: Any) -> None:
        """After each step: ``event.lines`` are the trace lines it added, of all rows."""

    @hookspec
    def on_finish(self, result: Any) -> None:
        """When an example of a run is decoded and graded: its ``Result``."""


def hooks(plugins: Iterable[object] = ()) -> pluggy.PluginManager:
    """The hooks of all installed packages, and ``plugins``. A broken one is named in a warning and left out."""
    manager = pluggy.PluginManager("mdm")
    manager.add_hookspecs(Hooks)
    for entry in registry.entries("hook"):
        try:
            manager.register(registry.load(entry), name=f"{entry.dist}:{entry.name}")
        except (MdmError, ValueError, pluggy.PluginValidationError) as error:
            logging.getLogger("mdm").warning("mdm: left out: %s", " ".join(str(error).split()))
    for plugin in plugins:
        manager.register(plugin)
    return manager
