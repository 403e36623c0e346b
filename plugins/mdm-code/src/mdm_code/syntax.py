"""What a piece of Python says: what it binds, what it needs from outside, whether it does anything."""

from __future__ import annotations

import ast
import builtins
import symtable
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache

NOT_PYTHON = (SyntaxError, ValueError, MemoryError, RecursionError)
"""What Python raises on a text that it cannot read, or whose expressions are too deep for it."""


@lru_cache(maxsize=64)
def parsed(text: str) -> ast.Module | None:
    """``text`` as Python reads it; None if it does not. The tree is not to be changed."""
    try:
        return _parse(text)
    except NOT_PYTHON:
        return None


def error(text: str) -> SyntaxError | None:
    """What is wrong with ``text``, where Python can say it."""
    try:
        _parse(text)
    except SyntaxError as wrong:
        return wrong
    except NOT_PYTHON:
        pass
    return None


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that a later Python frowns upon
        return ast.parse(text)


def idle(node: ast.stmt) -> bool:
    """Whether a statement does nothing, as a word of prose or a placeholder does that happens to be Python."""
    if isinstance(node, ast.Expr):
        return not any(isinstance(part, ast.Call | ast.Await | ast.Yield | ast.YieldFrom) for part in ast.walk(node))
    return isinstance(node, ast.Pass) or (isinstance(node, ast.AnnAssign) and node.value is None)


def is_stub(node: ast.stmt) -> bool:
    """Whether a function has no body to speak of."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return all(idle(part) or (isinstance(part, ast.Raise) and "NotImplemented" in ast.dump(part)) for part in node.body)


def returns(node: ast.AST) -> bool:
    """Whether a function gives a value by itself, not only through functions inside it."""
    inner = [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.FunctionDef | ast.Lambda)]
    return any(isinstance(part, ast.Return | ast.Yield | ast.YieldFrom) or returns(part) for part in inner)


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that bind names of the module, those under conditions too."""
    for node in body:
        yield node
        for inner in ("body", "orelse", "handlers", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from statements(getattr(node, inner, ()))


def names_of(node: ast.AST, *, imports: bool = True) -> set[str]:
    """What a statement binds. An assignment from a call of the same name is a use of it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names} if imports else set()
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        targeted = {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        return targeted - {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
    return set()


def bound(body: Iterable[ast.stmt]) -> set[str]:
    return {name for node in statements(body) for name in names_of(node)}


def taken_names(text: str) -> set[str]:
    """The names that a source takes from outside, builtins left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tables = [symtable.symtable(text, "<program>", "exec")]
        except NOT_PYTHON:
            return set()
    found: set[str] = set()
    for table in tables:
        tables += table.get_children()
        top = table.get_type() == "module"
        symbols = table.get_symbols()
        outer = [s for s in symbols if s.is_global() or (top and not s.is_assigned())]
        found |= {symbol.get_name() for symbol in outer if symbol.is_referenced()}
    return found - set(dir(builtins))


def lines_of(text: str, node: ast.stmt) -> str:
    return "\n".join(text.split("\n")[first_line(node) - 1 : node.end_lineno])


def first_line(node: ast.stmt) -> int:
    """The first line of a statement, its decorators included."""
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])


def is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
