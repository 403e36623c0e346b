# ruff: noqa: E501
"""Programs are found in whatever layout a model writes them, and no wrong one becomes right on the way."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, strategies as st
from mdm_code.programs import program, same

STUB = '''import math
from typing import List


def half(x: int) -> int:
    return x // 2


def mean(xs: List[int]) -> float:
    """ The mean of a list.
    >>> mean([1, 3])
    2.0
    """
'''
BODY = "    total = sum(xs)\n    return total / len(xs)\n"
WHOLE = "def mean(xs):\n" + BODY
WRONG = WHOLE.replace("/", "*")
PY = "```python\n"


def indented(text: str, by: str) -> str:
    return textwrap.indent(text, by)


COMMON = {
    "a fence": f"Here you are.\n\n{PY}{WHOLE}```\nIt divides.",
    "no line behind the fence": f"```{WHOLE}```",
    "a tag and code on one line": f"```python {WHOLE}```",
    "tag in capitals": f"```Python3\n{WHOLE}```",
    "attributes in braces": f'```{{.python .numberLines title="a.py"}}\n{WHOLE}```',
    "blanks around the tag": f"```  py  \n{WHOLE}```  ",
    "four ticks": f"````python\n{WHOLE}````",
    "a fence in a longer fence": f"````markdown\n{PY}{WHOLE}```\n````",
    "tildes": f"~~~ python\n{WHOLE}~~~\nDone.",
    "a shorter fence inside a longer one": f"````python\n{WHOLE.replace('return', '# ```' + chr(10) + '    return')}````",
    "no end": f"The answer:\n{PY}{WHOLE}",
    "the end on the last line": f"{PY}{WHOLE.rstrip()}```",
    "the end on the last line, and prose": f"{PY}{WHOLE.rstrip()}``` This is the mean.",
    "prose on the closing line": f"{PY}{WHOLE}``` This is the mean.",
    "opened twice": f"{PY}{PY}{WHOLE}```",
    "opened twice, bare": f"{PY}```\n{WHOLE}```",
    "already open": f"{WHOLE}```\n\nThis is the mean, as in\n```\nmean([1])\n```",
    "already open, the end on the last line": f"{WHOLE.rstrip()}```",
    "behind words": f"Here: {PY}{WHOLE}```",
    "in a list": "1. So:\n\n" + indented(f"{PY}{WHOLE}```", "   ") + "\n2. Done.",
    "the marker of a list before the fence": "- " + indented(f"{PY}{WHOLE}```", "  ").strip(),
    "a list without a fence": "1. So:\n\n" + indented(WHOLE, "    ") + "\n2. Done.",
    "code deeper than its fence": f"{PY}{indented(WHOLE, '    ')}```",
    "a blank before the first line": f"{PY} {WHOLE}```",
    "in a quote": "\n".join(f"> {line}" for line in f"{PY}{WHOLE}```".split("\n")),
    "carriage returns": f"{PY}{WHOLE}```".replace("\n", "\r\n"),
    "old carriage returns": f"{PY}{WHOLE}```".replace("\n", "\r"),
    "a byte-order mark": f"\ufeff{PY}\ufeff{WHOLE}```",
    "blanks that do not break": f"{PY}{WHOLE}```".replace("    ", "\u00a0" * 4),
    "tabs": f"{PY}{WHOLE}```".replace("    ", "\t"),
    "tabs and blanks": PY + WHOLE.replace("    total", "\ttotal", 1).replace("    return", "        return") + "```",
    "prompts": f"{PY}>>> def mean(xs):\n...     return sum(xs) / len(xs)\n...\n>>> mean([1, 3])\n2.0\n```",
    "a session behind": f"{PY}{WHOLE}\n>>> mean([1, 3])\n2.0\n```",
    "prose behind in the fence": f"{PY}{WHOLE}\nThis function divides the sum.\n```",
    "no fence": f"Sure! Here it is:\n\n{WHOLE}\nThis divides the sum by the length.\n",
    "no fence, one word behind": f"{WHOLE}\nDone\n",
    "no fence, a note behind": f"{WHOLE}\nNote: simple\n",
    "no fence, constants in front": "So:\n\nONE = 1\n\ndef mean(xs):\n    return ONE * sum(xs) / len(xs)\n\nEasy!",
    "no fence, imports in front": "So:\n\nimport math as m\n\ndef mean(xs):\n    return m.fsum(xs) / len(xs)\n\nOK?",
    "a decorator": f"So:\n\nfrom functools import wraps\n\n@wraps(sum)\n{WHOLE}\nThat is all.",
    "said again in a fence and cut off": f"{PY}{WHOLE}```\n{PY}{WHOLE[:30]}",
    "said again and again and cut off": f"{PY}{WHOLE}{WHOLE}{WHOLE[:30]}",
    "said again and cut off where it parses": f"{PY}{WHOLE}\n\n{WHOLE[:35]}",
    "an example that the prompt began": f"{WHOLE}[DONE]\n[BEGIN]\ndef mean(",
    "a draft": f"<think>{PY}{WRONG}``` no\n</think>\n{PY}{WHOLE}```",
    "a draft that the prompt opened": f"Perhaps {PY}{WRONG}```\n</think>\n\n{PY}{WHOLE}```",
    "two drafts": f"<think>\n{WRONG}</think>\n<Thinking>{WRONG}</Thinking>\n{WHOLE}",
    "a thought behind": f"{PY}{WHOLE}```\n<think>or rather\n{PY}{WRONG}```",
    "a correction": f"{PY}{WRONG}```\nThat multiplies. Corrected:\n{PY}{WHOLE}```",
    "a correction without a fence": f"{PY}{WRONG}```\nThat multiplies. Corrected:\n\n{WHOLE}\nBetter.",
    "a correction in other fences": f"~~~\n{WRONG}~~~\nNo:\n```\n{WHOLE}```",
    "an idea in pseudocode": f"```\nfor each x: add x\ndivide\n```\n{PY}{WHOLE}```",
    "a stub first": f"{PY}def mean(xs):\n    pass\n```\n{PY}{WHOLE}```",
    "a stub last": f"{PY}{WHOLE}```\nIts signature:\n{PY}def mean(xs):\n    ...\n```",
    "a signature last": f"{PY}{WHOLE}```\nIts signature:\n{PY}def mean(xs):\n```",
    "usage last": f"{PY}{WHOLE}```\nUse it:\n{PY}mean = mean([1, 3])\nprint(mean)\n```",
    "usage that imports it": f"{PY}{WHOLE}```\n{PY}from solution import mean\nprint(mean([1]))\n```",
    "usage that fails": f"{PY}{WHOLE}```\n{PY}assert mean([1]) == 7\nmean(None)\n```",
    "usage in a function": f"{PY}{WHOLE}```\n{PY}def main():\n    return mean([1, 3])\nmain()\n```",
    "tests last": f"{PY}{WHOLE}```\n{PY}import unittest\nclass T(unittest.TestCase):\n    def test(self): mean(1)\n```",
    "output last": f"{PY}{WHOLE}```\nOutput:\n```\n2.0\n```",
    "a shell last": f"{PY}{WHOLE}```\n```bash\npip install mean\n```",
    "a quoted line last": f"{PY}{WHOLE}```\nThe heart of it:\n{PY}return total / len(xs)\n```",
    "another language last": f"{PY}{WHOLE}```\nIn Ruby:\n```ruby\ndef mean(xs)\n  xs.sum / xs.size\nend\n```",
    "a helper in a block of its own": f"{PY}def total(xs):\n    return sum(xs)\n```\n{PY}def mean(xs):\n    return total(xs) / len(xs)\n```",
    "a helper behind": f"{PY}def mean(xs):\n    return total(xs) / len(xs)\n```\nwith\n{PY}def total(xs):\n    return sum(xs)\n```",
    "a helper of a draft": f"{PY}def total(xs): return sum(xs)\n{WRONG}```\nNo:\n{PY}def mean(xs):\n    return total(xs) / len(xs)\n```",
    "the better of two helpers": f"{PY}def total(xs): return 0\n```\n{PY}def total(xs): return sum(xs)\n```\n{PY}def mean(xs):\n    return total(xs) / len(xs)\n```",
    "a chain of helpers": f"{PY}import operator\n```\n{PY}def add(a, b): return operator.add(a, b)\n```\n{PY}def mean(xs):\n    s = 0\n    for x in xs: s = add(s, x)\n    return s / len(xs)\n```",
    "imports in a block of their own": f"{PY}from math import fsum\n```\n{PY}def mean(xs):\n    return fsum(xs) / len(xs)\n```",
    "a star import in a block of its own": f"{PY}from math import *\n```\n{PY}def mean(xs):\n    return fsum(xs) / len(xs)\n```",
    "a constant in a block of its own": f"{PY}ONE: int = 1\n```\n{PY}def mean(xs):\n    return ONE * sum(xs) / len(xs)\n```",
    "a local name that usage assigns": f"{PY}{WHOLE}```\n{PY}total = mean([1]) + undefined\n```",
    "a future import": f"{PY}from __future__ import annotations\n{WHOLE}```",
    "a docstring and a future import": f'{PY}"""A mean."""\nfrom __future__ import annotations\n{WHOLE}```',
    "a future import and a helper apart": f"{PY}from math import fsum\n```\n{PY}from __future__ import annotations\ndef mean(xs: Any):\n    return fsum(xs) / len(xs)\n```",
    "a coding line": f"{PY}# -*- coding: latin-1 -*-\n{WHOLE}```",
    "a main part": f"{PY}{WHOLE}\nif __name__ == '__main__':\n    print(mean(list(map(int, input().split()))))\n```",
    "a lambda": f"{PY}mean = lambda xs: sum(xs) / len(xs)\n```",
    "under a condition": f"{PY}import sys\nif sys.version_info > (3,):\n{indented(WHOLE, '    ')}else:\n    mean = None\n```",
    "a fence in a docstring": f'{PY}def mean(xs):\n    """The mean.\n    ```\n    mean([1])\n    ```\n    """\n{BODY}```\nSo it is.',
    "a tagged fence in a docstring": f'{PY}def mean(xs):\n    """The mean.\n    ```python\n    mean([1])\n    ```\n    """\n{BODY}```\nSo it is.',
    "a fence in a string": f'{PY}def mean(xs):\n    mark = "```"\n    return sum(xs) / len(xs)\n```',
    "another question behind": f"{WHOLE}\n\nQuestion: the sum of a list.\nAnswer:\n\ndef mean(xs): return 0\n",
    "another turn behind": f"{PY}{WHOLE}```<|eot_id|>\n{PY}{WRONG}```",
    "a thought in other brackets": f"\u25c1think\u25b7{WRONG}\u25c1/think\u25b7{WHOLE}",
    "a thought in tokens": f"<|begin_of_thought|>\n{WRONG}<|end_of_thought|>\n<|begin_of_solution|>\n{WHOLE}",
    "markup": f'<pre><code class="python">{WHOLE}</code></pre>',
    "markup and words": f"So:\n<code>{WHOLE}</code>\nThis is it.",
    "one tick": f"`{WHOLE}`",
    "the tag left over": f"python\n{WHOLE}```\nSo.",
    "lines explained": f"{PY}{WHOLE}```\nLine by line:\n\ndef mean(xs):\nThis begins it.\n\n1. return: this ends it",
    "a fence in a docstring, and none around": f'def mean(xs):\n    """```\n    mean([1])\n    ```"""\n{BODY}',
    "a test of its own behind": f"{PY}{WHOLE}```\n{PY}def check(candidate):\n    assert candidate([1]) == 1\ncheck(mean)\n```",
    "a comment that shows a draft": f"{PY}# def mean(xs): return 0\n{WHOLE}```",
    "answer tags": f"<answer>\n{WHOLE}</answer>",
    "bold heading": f"**Solution:**\n\n{PY}{WHOLE}```\n\n### Explanation\n- **total**: the sum",
    "an end mark": f"{WHOLE}[DONE]\n[BEGIN]\n{WRONG}[DONE]".replace("[BEGIN]", ""),
    "begin and end": f"[BEGIN]\n{WHOLE}[DONE]",
    "begin and end of two": f"[BEGIN]\n{WHOLE}[DONE]\nYou are next\n[BEGIN]\n{WRONG}[DONE]",
    "begin without end": f"Well.\n[BEGIN]\n{WHOLE}",
    "begin, end and a fence": f"[BEGIN]\n{PY}{WHOLE}```\n[DONE]",
    "begin twice": f"[BEGIN]\n[BEGIN]\n{WHOLE}[DONE]",
    "quotes": f"[BEGIN]\n '{WHOLE}' \n[DONE]",
    "quotes on lines of their own": f"[BEGIN]\n'\n{WHOLE}'\n[DONE]",
    "quotes of three": f'[BEGIN]\n"""\n{WHOLE}"""\n[DONE]',
    "quotes of three singles": f"[BEGIN]\n'''{WHOLE}'''\n[DONE]",
    "quotes with escapes": f"[BEGIN]\n{WHOLE!r}\n[DONE]",
    "double quotes with escapes": '[BEGIN] "' + WHOLE.replace("\n", "\\n") + '" [DONE]',
    "a quote that is never closed": f"[BEGIN]\n'{WHOLE}[DONE]",
    "a quote that the prompt opened": f"{WHOLE.rstrip()}'\n[DONE]\nnoise",
    "quotes and no end": f"'{WHOLE}'\n\nThis is the mean.",
    "quotes in quotes": "[BEGIN]\n'" + WHOLE.replace("total = ", "a = 'x'\n    total = ") + "'\n[DONE]",
    "marks without brackets": f"BEGIN\n{WHOLE}DONE\nnoise",
    "marks in small letters": f"[begin]\n{WHOLE}[done]\nnoise",
    "curly quotes": f"[BEGIN]\n\u2018{WHOLE}\u2019\n[DONE]",
    "a quoted fence": f"[BEGIN]\n'{PY}{WHOLE}```'\n[DONE]",
    "escaped marks": f"\\[BEGIN\\]\n{WHOLE.replace('total', 'my' + chr(92) + '_total')}\\[DONE\\]",
}  # fmt: skip
CONTINUED = {
    "the body": BODY,
    "the body, and prose": BODY + "\nThis is the mean.\n",
    "the body, and a fence": BODY + "```\n\nThis is the mean.",
    "the body, the end on its last line": BODY.rstrip() + "```",
    "the body, its first indentation lost": BODY.lstrip(),
    "the body, all indentation lost": textwrap.dedent(BODY),
    "the body, and another function": BODY + "\n\ndef other(x):\n    return x\n\nprint(other(1))\n",
    "the body, and a question": BODY + "\n\nQuestion: what next?\ndef mean(xs): return 0\n",
    "the body of two blanks": BODY.replace("    ", "  "),
    "the body of tabs": BODY.replace("    ", "\t"),
    "the body in a fence": f"{PY}{BODY}```",
    "the body in a fence, all indentation lost": f"{PY}{textwrap.dedent(BODY)}```",
    "the body behind a closed stub": f"{PY}{STUB}```\n{PY}{BODY}```",
    "the body behind a fence opened again": f"{PY}{STUB}{PY}{BODY}```",
    "the body behind words": f"The body is:\n{PY}{BODY}```\nThat is all.",
    "all": STUB + BODY,
    "all, in the fence that the prompt opened": f"{PY}{STUB}{BODY}```\nSo.",
    "all, cut off": f"{PY}{STUB}{BODY}",
    "opened again": f"{PY}{STUB}{PY}{STUB}{BODY}```",
    "a comment in the stub": f"{PY}{STUB}    # code\n```\nSo:\n{PY}{STUB}{BODY}```",
    "a wrong body first": f"{PY}{STUB}{BODY.replace('/', '*')}```\nNo:\n{PY}{STUB}{BODY}```",
    "a wrong body, then the right one": f"{PY}{STUB}{BODY.replace('/', '*')}```\nThe body should be:\n{PY}{BODY}```",
    "a helper of the prompt": "def mean(xs: List[int]) -> float:\n    return sum(xs) / math.floor(half(2 * len(xs)))",
    "a future import": "from __future__ import annotations\ndef mean(xs: List[Any]):\n    return sum(xs) / len(xs)",
}  # fmt: skip
FAILS = {
    "nothing": "",
    "prose": "I am sorry, I cannot do that.",
    "a word": "Sure",
    "an empty fence": f"{PY}```",
    "a nul": "\0" + WHOLE.replace("/", "\0/"),
    "half a character": PY + WHOLE.replace("total =", "x = '\ud800'; total =") + "```",
    "right in a draft, wrong in the end": f"{PY}{WHOLE}```\nOr better:\n{PY}{WRONG}```",
    "right in a thought": f"<think>\n{PY}{WHOLE}```\n</think>\n{PY}{WRONG}```",
    "right in a thought only": f"<think>\n{PY}{WHOLE}```\n</think>\nSo it is.",
    "a thought without end": f"<think>\nPerhaps\n{PY}{WHOLE}```\nyes",
    "right, then wrong without a fence": f"{PY}{WHOLE}```\nNo, it must be\n\n{WRONG}\nThat is it.",
    "right, then broken": f"{PY}{WHOLE}```\nNo:\n{PY}def mean(xs):\n    return sum(xs) / len(xs\n```",
    "right, then broken without a fence": f"{WHOLE}\nNo, it must be\n\ndef mean(xs):\n    return sum(xs) /\n\nDone.",
    "right, then cut off": f"{PY}{WHOLE}```\nNo:\n{PY}def mean(xs):\n    return (sum(xs)",
    "right, then broken in one block": f"{PY}{WHOLE}\ndef mean(xs):\n    return sum(xs) /\n```",
    "right, then wrong in one block": f"{PY}{WHOLE}\n{WRONG}```",
    "right, then nothing at all by name": f"{PY}{WHOLE}\nmean = None\n```",
    "broken in its last line": f"{PY}def mean(xs):\n    if not xs: return 0\n    return sum(xs) / len(xs\n```",
    "broken in its first line": f"{PY}{WHOLE.replace(':', '', 1)}```",
    "another name": f"{PY}{WHOLE.replace('mean', 'average')}```",
    "another name, quoted": f"[BEGIN]\n'{WHOLE.replace('mean', 'average')}'\n[DONE]",
    "a method": f"{PY}class Solution:\n{indented(WHOLE.replace('(xs', '(self, xs'), '    ')}```",
    "a static method of a broken class": f"{PY}class Solution\n    @staticmethod\n{indented(WHOLE, '    ')}```",
    "an inner function": f"{PY}def outer():\n{indented(WHOLE, '    ')}```",
    "a missing helper": f"{PY}def mean(xs):\n    return total(xs) / len(xs)\n```",
    "a helper that is wrong": f"{PY}def total(xs): return 0\n```\n{PY}def mean(xs):\n    return total(xs) / len(xs)\n```",
    "a stub": f"{PY}def mean(xs):\n    raise NotImplementedError\n```",
    "a comment": f"{PY}# {WHOLE.splitlines()[0]}\n```",
    "in a string": f"{PY}text = '''\n{WHOLE}'''\n```",
    "right behind the end mark": f"[BEGIN]\n{WRONG}[DONE]\n{WHOLE}",
    "right in the next question": f"{WRONG}\nQuestion: the mean\n{WHOLE}",
    "wrong in quotes": f"[BEGIN]\n'{WRONG}'\n[DONE]",
    "usage only": f"{PY}print(mean([1, 3]))\n```",
    "a name that begins with it": f"{PY}{WHOLE.replace('mean', 'mean_of')}```",
    "Python 2": f"{PY}def mean(xs):\n    print sum(xs)\n    return sum(xs) / len(xs)\n```",
    "right, then without indentation": f"{PY}{WHOLE}```\nRather:\n\ndef mean(xs):\nreturn sum(xs)\n",
    "prose in the body": f"{PY}{WHOLE}    This divides them.\n```",
    "a wrong answer behind a thought": f"<think>\n{WHOLE}</think>\n<answer>\n{WRONG}</answer>",
    "an assertion in front": f"{PY}assert mean([1, 3]) == 2\n{WHOLE}```",
    "raises at its end": f"{PY}{WHOLE}\nraise ValueError\n```",
    "a main part that reads": f"{PY}{WHOLE}\nn = int(input())\n```",
}  # fmt: skip
WRONG_BODIES = {
    "wrong": BODY.replace("/", "*"),
    "broken": BODY.replace("return total / len(xs)", "return total / len(xs"),
    "right, then a wrong body": f"{PY}{STUB}{BODY}```\nNo, rather:\n{PY}    return sum(xs)\n```",
    "right, then a wrong function": f"{BODY}\n\ndef mean(xs):\n    return 0\n",
    "right, then a broken function": f"{BODY}\n\ndef mean(xs):\n    return (0\n",
    "the stub alone": STUB,
    "the stub alone, in a fence": f"{PY}{STUB}```",
    "behind the end mark": "[DONE]" + BODY,
}


def right(source: str) -> bool:
    """Whether the program computes means. These programs are ours, so they need no sandbox."""
    names = {"__name__": "solution"}
    try:
        exec(compile(source, "<program>", "exec", dont_inherit=True), names)
        return names["mean"]([1, 3]) == 2 and names["mean"]([4]) == 4
    except Exception:
        return False


@pytest.mark.parametrize("layout", COMMON)
@pytest.mark.parametrize("given", ["", STUB], ids=["a question", "a stub"])
def test_a_program_is_read_in_every_layout(layout, given):
    assert right(program(COMMON[layout], ["mean"], given)), program(COMMON[layout], ["mean"], given)


@pytest.mark.parametrize("layout", COMMON)
def test_a_wrong_program_is_wrong_in_every_layout(layout):
    """The right and the wrong function change places, and every other right one becomes wrong."""
    text = COMMON[layout].replace("/ len", "@ len").replace("* len", "/ len").replace("@ len", "* len")
    assert text != COMMON[layout] and not right(program(text, ["mean"]))


@pytest.mark.parametrize("layout", CONTINUED)
def test_a_stub_is_continued_or_replaced(layout):
    assert right(program(CONTINUED[layout], ["mean"], STUB)), program(CONTINUED[layout], ["mean"], STUB)


@pytest.mark.parametrize("layout", FAILS)
@pytest.mark.parametrize("given", ["", STUB], ids=["a question", "a stub"])
def test_what_holds_no_right_program_fails(layout, given):
    assert not right(program(FAILS[layout], ["mean"], given)), program(FAILS[layout], ["mean"], given)


@pytest.mark.parametrize("layout", WRONG_BODIES)
def test_a_wrong_body_fails(layout):
    assert not right(program(WRONG_BODIES[layout], ["mean"], STUB)), program(WRONG_BODIES[layout], ["mean"], STUB)


@pytest.mark.parametrize(
    "text", [WHOLE, f"# first\n\n{WHOLE}\n# last\n", f'"""A mean."""\n{WHOLE}\nprint(mean([1]))\n']
)
def test_what_is_python_is_not_touched(text):
    assert program(text, ["mean"]) == text
    assert program(f"{PY}{text}```", ["mean"]).strip() == text.strip()
    assert program(STUB + BODY, ["mean"], STUB) == STUB + BODY == program(BODY, ["mean"], STUB)


def test_the_same_program_is_told_by_its_meaning():
    assert same("x = 1", "x  =  1  # one") and same("not python", "not python\n")
    assert not same("x = 1", "x = 2") and not same("x =", "y =")


PARTS = ["```", "~~~", "````", "python", "\n", " ", "    ", "def mean(xs):", "return 1", "[BEGIN]", "[DONE]", "'", '"""',
         "<think>", "</think>", ">>> ", "(", "\t", "\0", "x = 1", "class A:", "Question:", "\\n", "\ud800", "# a"]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=25).map("".join), st.sampled_from(["", STUB, "def mean(xs):"]))
def test_nothing_that_is_written_breaks_the_reader(text, begun):
    assert isinstance(program(text, ["mean"], begun), str) and isinstance(program(text, [], begun), str)


REPEATED = ["x = 1\nand so on\n", "x = (\n", "def mean(xs:\n", "def mean(xs):\n    return (\n", "```\n", "```python\n", "'\'\'\n",
            "Question: a\n" + WHOLE, "return 1\nand so on\n", "[BEGIN]\n", "<think>", "("]  # fmt: skip


@pytest.mark.parametrize("again", REPEATED)
def test_a_model_that_repeats_itself_is_read(again):
    assert isinstance(program(60 * again, ["mean"], STUB), str)


def test_nothing_right_passes_before_more_than_is_read():
    assert not right(program(WHOLE + 450 * "x = 1\nand so on\n" + WRONG, ["mean"]))
