"""The published reference programs of HumanEval and MBPP in the layouts of models, right and with a planted bug.

As a script (``python tests/support/code_layouts.py``) it judges all of them in the sandbox and prints the table.
"""

from __future__ import annotations

import ast
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mdm_code import pool
from mdm_code.humaneval import HumanEval, HumanEvalOptions
from mdm_code.mbpp import Mbpp, MbppOptions
from mdm_code.programs import program
from mdm_code.sandbox import Job, Limits, run

DATA = Path(__file__).parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Problem:
    """A published problem. ``given`` is the beginning of ``whole`` that a prompt shows, if it shows one."""

    id: str
    names: list[str]
    given: str
    whole: str
    tests: tuple[str, ...]
    prelude: str

    def job(self, written: str) -> Job:
        return Job(written, self.tests, {name: name for name in self.names}, self.prelude)


def _parse(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that a later Python frowns upon
        return ast.parse(code)


def _block(code: str) -> str:
    return f"```python\n{code.strip(chr(10))}\n```"


def _halves(code: str) -> tuple[str, str] | None:
    """The first function apart, if what is left still stands by itself."""
    body, lines = _parse(code).body, code.split("\n")
    if len(body) < 2 or not isinstance(body[0], ast.FunctionDef):
        return None
    end = body[0].end_lineno or 0
    return "\n".join(lines[:end]), "\n".join(lines[end:])


LAYOUTS: dict[str, Callable[[str, str, str], str]] = {
    "a fence": lambda code, draft, name: f"Sure, this is it.\n\n{_block(code)}\n\nIt does what is asked.",
    "an open fence": lambda code, draft, name: f"```python\n{code}",
    "opened twice": lambda code, draft, name: f"```python\n{_block(code)}",
    "in a thought first": lambda code, draft, name: f"<think>\nMaybe\n{_block(draft)}\n</think>\n{_block(code)}",
    "corrected": lambda code, draft, name: f"{_block(draft)}\nThat is wrong. Rather:\n\n{_block(code)}\n",
    "in a list": lambda code, draft, name: "1. So:\n\n" + textwrap.indent(f"~~~ py\n{code}\n~~~", "   ") + "\n2. Done.",
    "closed on the last line": lambda code, draft, name: f"Here: ```python\n{code.rstrip()}```",
    "no fence": lambda code, draft, name: f"Sure, this is it:\n\n{code}\n\nIt does what is asked.\n",
    "quoted": lambda code, draft, name: f"[BEGIN]\n '{code}' \n[DONE]\n[BEGIN]\n{draft}\n[DONE]",
    "usage behind": lambda code, draft, name: f"{_block(code)}\nUse:\n{_block(f'x = {name}(1)')}\n```\n1\n```",
}
"""Name -> a text that holds ``code``; ``draft`` is one that the text takes back, ``name`` what both define."""


def planted(code: str, name: str) -> str:
    """``code`` with each result of the function turned into one of the other truth."""

    class Plant(ast.NodeTransformer):
        def visit_Return(self, node: ast.Return) -> ast.Return:
            value = node.value or ast.Constant(None)
            return ast.Return(ast.IfExp(value, ast.Constant(None), ast.Constant(1)))

    tree = _parse(code)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            was = ast.dump(node)
            Plant().visit(node)
            if ast.dump(node) == was:
                node.body = [ast.Return(ast.Constant("bug"))] if isinstance(node, ast.FunctionDef) else [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


def humaneval() -> Iterator[Problem]:
    for example in HumanEval(HumanEvalOptions()).examples(seed=0, data=DATA / "humaneval.jsonl.gz"):
        given, name, test = (example.inputs[key] for key in ("prompt", "entry_point", "test"))
        yield Problem(example.id, [name], given, given + example.reference, (test, f"check({name})"), given)


def mbpp() -> Iterator[Problem]:
    for example in Mbpp(MbppOptions()).examples(seed=0, data=DATA / "mbpp.jsonl"):
        names, setup, tests, imports = (example.inputs[key] for key in ("names", "setup", "tests", "imports"))
        yield Problem(example.id, names, "", example.reference, (setup, *tests), imports)


def layouts(problem: Problem, code: str, draft: str) -> Iterator[tuple[str, str]]:
    """The name of a layout and the text, for each that a problem can have."""
    for layout, text in LAYOUTS.items():
        yield layout, text(code, draft, problem.names[0])
    if problem.given:
        body = _body(problem, code)
        yield "the body", body + "\n\nThat is all.\n"
        yield "the body in a block", _block(problem.given) + _block(body)
    if blocks := _halves(code):
        yield "two blocks", "\nand\n".join(map(_block, blocks))


def _body(problem: Problem, code: str) -> str:
    """What follows the given part."""
    if code.startswith(problem.given):
        return code.removeprefix(problem.given)
    stub, function = (
        next(n for n in _parse(text).body if isinstance(n, ast.FunctionDef) and n.name == problem.names[0])
        for text in (problem.given, code)
    )
    return textwrap.indent("\n".join(map(ast.unparse, function.body[len(stub.body) :])), "    ")


def meaning(code: str) -> str:
    """What two layouts of one program have in common: all but comments and docstrings."""
    try:
        tree = _parse(code)
    except (SyntaxError, ValueError):
        return code
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def main(limit: int | None) -> None:
    limits = Limits(cpu=30, wall=90)
    for task, problems in (("humaneval", list(humaneval())), ("mbpp", list(mbpp()))):
        table: dict[str, Counter[str]] = {}
        odd: list[str] = []

        def one(problem: Problem, table: dict[str, Counter[str]] = table, odd: list[str] = odd) -> None:
            if not run(problem.job(problem.whole), limits).passed:
                odd.append(f"{problem.id}: the reference fails untouched")
                return
            known = {meaning(problem.whole): True}
            bug = planted(problem.whole, problem.names[0])
            for kind, code, draft in (("right", problem.whole, bug), ("wrong", bug, problem.whole)):
                for layout, text in layouts(problem, code, draft):
                    found = program(text, problem.names, problem.given)
                    key = meaning(found)
                    if key not in known:
                        known[key] = run(problem.job(found), limits).passed
                    counts = table.setdefault(layout, Counter())
                    counts[kind] += 1
                    counts[f"{kind} passed"] += known[key]
                    if known[key] != (kind == "right"):
                        odd.append(f"{problem.id}: {kind}, {layout}")

        with ThreadPoolExecutor(pool.cores()) as threads:
            list(threads.map(one, problems[:limit]))
        print(f"{task}: {len(problems)} problems; right that pass, with a planted bug that pass")
        for layout, counts in table.items():
            shares = [f"{counts[f'{kind} passed']}/{counts[kind]}" for kind in ("right", "wrong")]
            print(f"  {layout:24} {'  '.join(shares)}")
        print(*(f"  {line}" for line in sorted(odd)), sep="\n", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
