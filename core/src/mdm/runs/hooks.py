"""The hooks of all installed packages, called while a run goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy
from mdm import registry
from mdm.errors import MdmError
from mdm.protocols.hooks import Hooks

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.protocols.hooks import StepEvent


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


class _Hooks:
    """The hooks of all packages. One that fails stops the run, and no example is blamed for it."""

    def __init__(self) -> None:
        self._hook = hooks().hook
        # Being watched costs the engine a transfer a step.
        self.on_step = self._on_step if self._hook.on_step.get_hookimpls() else None

    def _on_step(self, event: StepEvent) -> None:
        self._call("on_step", event=event)

    def on_finish(self, result: Result) -> None:
        self._call("on_finish", result=result)

    def _call(self, name: str, **what: Any) -> None:
        try:
            getattr(self._hook, name)(**what)
        except Exception as error:
            raise MdmError(f"a hook failed in {name}: {type(error).__name__}: {error}") from error
