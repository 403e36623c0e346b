"""The hooks of all installed packages, called while a run goes on."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pluggy
from mdm import registry
from mdm.errors import MdmError, blamed, suggest
from mdm.protocols.hooks import Hooks

if TYPE_CHECKING:
    from mdm.api import Result
    from mdm.protocols.hooks import StepEvent
    from mdm.runs.results import ExampleResult


class RunHooks:
    """The hooks of all installed packages.

    One that does not load, or that implements a hook that does not exist, is named in a warning and left out. One that
    raises stops the run with an MdmError that names it.
    """

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager("mdm")
        self._manager.add_hookspecs(Hooks)
        for entry in registry.entries("hook"):
            try:
                with blamed(str(entry)):
                    self._register(entry)
            except MdmError as error:
                logging.getLogger("mdm").warning("mdm: left out: %s", " ".join(str(error).split()))
        self.sees_steps = bool(self._manager.hook.on_step.get_hookimpls())
        """Whether any package implements ``on_step``, which costs the engine a transfer per step."""

    def on_step(self, event: StepEvent) -> None:
        """Call the packages' ``on_step``."""
        self._call("on_step", event=event)

    def on_finish(self, result: Result | None, example: ExampleResult) -> None:
        """Call the packages' ``on_finish``."""
        self._call("on_finish", result=result, example=example)

    def _register(self, entry: registry.Entry) -> None:
        plugin, name = registry.load(entry), f"{entry.name!r} of package {entry.package}"
        self._manager.register(plugin, name=name)
        try:
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            self._manager.unregister(plugin)
            raise MdmError(f"hook {name}: {self._unknown(plugin)}") from error

    def _unknown(self, plugin: object) -> str:
        """The implementations of a plugin that are named like no hook."""
        known = [name for name in vars(Hooks) if not name.startswith("_")]
        marked = (name for name in dir(plugin) if self._manager.parse_hookimpl_opts(plugin, name) is not None)
        return " ".join(f"there is no hook {name!r}.{suggest(name, known)}" for name in marked if name not in known)

    def _call(self, hook: str, **arguments: Any) -> None:
        plugins = self._manager.get_plugins()
        for name, plugin in self._manager.list_name_plugin():
            with blamed(f"hook {name} failed in {hook}"):
                self._manager.subset_hook_caller(hook, plugins - {plugin})(**arguments)
