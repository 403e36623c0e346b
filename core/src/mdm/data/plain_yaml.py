"""The YAML that configurations are written in: plain values, and aliases that cannot blow a small text up."""

from __future__ import annotations

import re
from collections.abc import Hashable
from math import isfinite
from typing import Any, NoReturn

from yaml import AliasEvent, MappingNode, Node, ScalarNode
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

try:
    from yaml.cyaml import CParser as Events  # type: ignore[attr-defined]  # five times as fast
except ImportError:

    class Events(Reader, Scanner, Parser):  # type: ignore[no-redef]
        """What PyYAML itself makes of a text, where it was built without libyaml."""

        def __init__(self, text: str) -> None:
            Reader.__init__(self, text)
            Scanner.__init__(self)
            Parser.__init__(self)


DEPTH = 64
"""Lists and mappings inside each other."""
NODES = 20_000
"""Values of a document, each counted as often as an alias repeats it."""
WHOLE = range(-(2**63), 2**64)
"""Whole numbers that are read: no count, id or seed is another one."""

_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + name for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}
_WITHOUT = {_TAG + name for name in ("timestamp", "value", "int")}
_INT = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")


class Loader(Composer, SafeConstructor, Resolver, Events):
    """PyYAML's safe constructor, within bounds. ``10:20`` and a date are texts here, and no numbers of other bases."""

    yaml_implicit_resolvers: dict[Any, Any] = {
        first: [pair for pair in pairs if pair[0] not in _WITHOUT]
        for first, pairs in Resolver.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        Events.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # of the nodes that an alias may repeat

    def compose_node(self, parent: Any, index: Any) -> Any:
        alias = self.check_event(AliasEvent)
        event: Any = self.peek_event()
        mark, before = event.start_mark, self._nodes
        self._depth += 1
        if self._depth > DEPTH:
            self._refuse(mark, f"lists and mappings are nested more than {DEPTH} deep")
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._sizes:
            self._refuse(mark, "a value refers to itself")
        self._nodes += self._sizes[id(node)] if alias else 1
        if self._nodes > NODES:
            self._refuse(mark, f"there are more than {NODES:,} values, with those that aliases repeat")
        self._sizes[id(node)] = self._nodes - before
        if not alias and node.tag not in _PLAIN:
            self._refuse(mark, f"the tag {node.tag[:60]!r} is none of a plain value")
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node: MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                self._refuse(key.start_mark, "a key is no text or number")
            if (key.tag, key.value) in seen:
                self._refuse(key.start_mark, f"the key {key.value[:60]!r} is given twice")
            seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            value: Hashable = super().construct_object(node, deep)
        except (ValueError, KeyError) as error:  # `!!int x`, `!!bool x`
            self._refuse(node.start_mark, f"{str(node.value)[:60]!r} is no {node.tag.removeprefix(_TAG)} ({error})")
        if isinstance(value, float) and not isfinite(value):
            self._refuse(node.start_mark, f"{str(node.value)[:60]!r} is no finite number")
        if isinstance(value, int) and value not in WHOLE:
            self._refuse(node.start_mark, f"the number {str(node.value)[:60]!r} does not fit into 64 bits")
        return value

    def _refuse(self, mark: Any, why: str) -> NoReturn:
        raise ValueError(f"line {mark.line + 1}: {why}")


Loader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
