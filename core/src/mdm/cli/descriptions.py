"""What a plugin is for, in one line, read from its source: nothing is imported, so that lists are quick and safe."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec, resolve_name
from pathlib import Path

from mdm.registry import Entry

HOPS = 8
"""Names that are followed, from the one that an entry point announces to where it is defined."""


def description(entry: Entry) -> str:
    """The first sentence of the docstring of what an entry point names: of an object that of its class, and of a click
    command its ``short_help``; else its module's. Empty where there is no source."""
    module, _, attribute = entry.value.partition(":")
    with suppress(OSError, SyntaxError, ValueError, ImportError, RecursionError):
        tree, node = definition(module.strip(), attribute.strip())[1:]
        if node is None:
            return first_sentence(ast.get_docstring(tree) or "")
        short = next(filter(None, map(_short_help, node.decorator_list)), "")
        return first_sentence(short or ast.get_docstring(node) or "")
    return ""


def source_fault(entry: Entry) -> str | None:
    """Why an entry point can name nothing, as far as its source tells: it is gone, or no Python; None: it may load."""
    module = entry.value.partition(":")[0].strip()
    with suppress(ValueError, ImportError):
        if find_spec(module.partition(".")[0]) is None:
            return f"{entry}: its module {module} is gone: install it again"
        try:
            _tree(module)
        except SyntaxError as error:
            return f"{entry}: {error.msg}, line {error.lineno} of the source of {module}"
        except OSError:
            pass  # no source: a compiled module
    return None


def first_sentence(text: str) -> str:
    """The first sentence of the first paragraph, without its full stop."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split()).replace("``", "`")
    return re.split(r"(?<![A-Z])(?<!\.[a-z])\.\s", paragraph)[0].removesuffix(".")


@lru_cache
def _tree(module: str) -> tuple[ast.Module, bool]:
    """The source of a module, and whether it is a package."""
    top, *below = module.split(".")
    spec = find_spec(top)  # of a module below it this would import the package
    packages = [Path(folder, *below) for folder in getattr(spec, "submodule_search_locations", ()) or ()]
    files = [file for path in packages for file in (path / "__init__.py", path.with_suffix(".py"))]
    files += [Path(spec.origin)] if spec is not None and spec.origin else []
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise FileNotFoundError(module)
    return ast.parse(path.read_bytes()), path.name == "__init__.py"


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Those of a module, and those below an ``if``, such as ``if TYPE_CHECKING``."""
    for node in tree.body:
        yield from node.body if isinstance(node, ast.If) else [node]


def definition(module: str, name: str) -> tuple[str, ast.Module, ast.ClassDef | ast.FunctionDef | None]:
    """The module that defines what ``module`` calls ``name``, its source, and the class or function, or None.

    Of an object it is its class, or the function that makes it.

    Raises:
        OSError, SyntaxError, ValueError, ImportError: the source cannot be found or read.
    """
    tree, is_package = _tree(module)
    for _ in range(HOPS):
        for node in _statements(tree):
            if isinstance(node, ast.ImportFrom):
                known = {alias.asname or alias.name: alias.name for alias in node.names}
                if name in known:
                    here = module if is_package else module.rpartition(".")[0]
                    module, name = resolve_name("." * node.level + (node.module or ""), here), known[name]
                    tree, is_package = _tree(module)
                    break
            elif isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return module, tree, node
            elif isinstance(node, ast.Assign) and any(getattr(to, "id", "") == name for to in node.targets):
                name = getattr(getattr(node.value, "func", node.value), "id", "")
                break
        else:
            break
    return module, tree, None


def _short_help(decorator: ast.expr) -> str:
    for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
        if keyword.arg == "short_help":
            return str(ast.literal_eval(keyword.value))
    return ""
