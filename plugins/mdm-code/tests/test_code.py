"""The published files are read, put and graded; pass@k is what its definition says."""

from __future__ import annotations

import itertools
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import code_layouts
import pytest
from mdm.errors import MdmError
from mdm.protocols import Example
from mdm_code import pool, sandbox
from mdm_code.humaneval import HumanEval, HumanEvalOptions
from mdm_code.jail import kernel
from mdm_code.mbpp import SHOTS, Mbpp, MbppOptions, interface
from mdm_code.programs import program
from mdm_code.task import CodeTask, pass_at

if not kernel.supported():
    pytest.skip("code is confined on Linux only", allow_module_level=True)

DATA = Path(__file__).parents[4] / "shared" / "data"
FULL = bool(os.environ.get("MDM_FULL"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not here")


@pytest.fixture
def humaneval():
    task = HumanEval(HumanEvalOptions(timeout=10))
    yield task
    task.close()


@pytest.fixture
def mbpp():
    task = Mbpp(MbppOptions(timeout=10))
    yield task
    task.close()


def passed(task, examples, completion):
    grades = [(example.id, task.grade(example, completion(example))) for example in examples]
    return [name for name, grade in grades if grade["passed"] == 1]


@needs_data
def test_humaneval_references_pass_and_empty_ones_fail(humaneval):
    """A sample; every one of the 164 with MDM_FULL=1."""
    examples = list(humaneval.examples(seed=0, data=DATA / "humaneval.jsonl.gz"))
    assert len(examples) == 164
    some = [e for i, e in enumerate(examples) if FULL or i % 12 == 0 or i in (32, 33, 38, 50, 53)]
    assert passed(humaneval, some, lambda e: e.reference) == [e.id for e in some]
    assert passed(humaneval, some if FULL else some[::4], lambda e: "") == []


@needs_data
def test_mbpp_references_pass_and_empty_ones_fail(mbpp):
    """A sample, with all that are odd; every one of the 974 with MDM_FULL=1."""
    examples = list(mbpp.examples(seed=0, data=DATA / "mbpp.jsonl"))
    assert len(examples) == 974
    odd = {f"MBPP/{number}" for number in (126, 367, 533, 596, 601, 927)}
    some = [e for i, e in enumerate(examples) if FULL or i % 80 == 0 or e.id in odd]
    assert passed(mbpp, some, lambda e: e.reference) == [e.id for e in some]
    assert passed(mbpp, some if FULL else some[::4], lambda e: "") == []


@needs_data
@pytest.mark.parametrize("problems", [code_layouts.humaneval, code_layouts.mbpp], ids=["humaneval", "mbpp"])
def test_references_are_read_in_the_layouts_of_models(problems):
    """200 seeded samples, right and with a planted bug, are read as what was written; a few of them are judged.

    All of them in all layouts, judged: ``python tests/support/code_layouts.py``.
    """
    draw = random.Random(17)
    known = list(problems())
    some = [*draw.sample(known, min(200, len(known))), *draw.sample(known, max(0, 200 - len(known)))]
    judged = []
    for problem in some:
        bug = code_layouts.planted(problem.whole, problem.names[0])
        for code, draft, right in ((problem.whole, bug, True), (bug, problem.whole, False)):
            layout, text = draw.choice(list(code_layouts.layouts(problem, code, draft)))
            found = program(text, problem.names, problem.given)
            assert code_layouts.meaning(found) == code_layouts.meaning(code), (problem.id, layout)
            judged.append((problem.id, layout, problem.job(found), right))
    with ThreadPoolExecutor(pool.cores()) as threads:
        verdicts = threads.map(lambda one: sandbox.run(one[2], sandbox.Limits(wall=60)).passed, judged[:400:33])
        assert [one[:2] for one, passed in zip(judged[:400:33], verdicts, strict=True) if passed != one[3]] == []


@needs_data
def test_golden_prompts(humaneval, mbpp):
    example = next(e for e in humaneval.examples(seed=0, data=DATA / "humaneval.jsonl.gz") if e.id == "HumanEval/23")
    given = 'def strlen(string: str) -> int:\n    """ Return length of given string\n    >>> strlen(\'\')\n    0\n    >>> strlen(\'abc\')\n    3\n    """\n'  # noqa: E501
    prompt = humaneval.prompt(example, "chat")
    assert prompt.answer.strip() == f"```python\n\n\n{given}".strip() and prompt.gen_length == 256
    assert [(m.role, m.content) for m in prompt.context] == [
        ("user", "Complete the following Python function. Write the whole function in one code block, and nothing "
         f"after it.\n\n```python\n\n\n{given}```")
    ]  # fmt: skip
    assert humaneval.prompt(example, "compact").context == f"\n\n{given}"
    example = next(e for e in mbpp.examples(seed=0, data=DATA / "mbpp.jsonl") if e.id == "MBPP/17")
    prompt = mbpp.prompt(example, "chat")
    assert [m.role for m in prompt.context] == ["user", "assistant"] * 3 + ["user"]
    assert prompt.context[-1].content == (
        "You are an expert Python programmer, and here is your task: Write a function to find the perimeter of a "
        "square. Your code should pass these tests:\n\nassert square_perimeter(10)==40\n"
        "assert square_perimeter(5)==20\nassert square_perimeter(4)==16\n\nAnswer with one Python code block."
    )
    assert (prompt.answer, prompt.gen_length) == ("```python\n", 256)
    assert mbpp.prompt(example, "compact").context.endswith(prompt.context[-1].content + "\n```python\n")


def test_the_shown_answers_are_right():
    for _, tests, answer in SHOTS:
        names, _ = interface(list(tests), answer)
        assert sandbox.run(sandbox.Job(answer, tests, {name: name for name in names})).passed


PROMPT = 'from typing import List\n\ndef twice(xs: List[int]) -> List[int]:\n    """ Double each. """\n'
TWICE = Example(
    "x",
    {"prompt": PROMPT, "entry_point": "twice", "test": "def check(candidate):\n    assert candidate([1]) == [2]"},
    "",
)
BODY = "    return [2 * x for x in xs]\n"


@pytest.mark.parametrize(
    "completion",
    [
        BODY,
        BODY + "\nThis doubles each number.\n",
        PROMPT + BODY,
        f"Sure!\n```python\n{PROMPT}{BODY}```\nIt doubles each number.",
        f"```python\n{PROMPT}{BODY}",  # cut off before the fence closes
        f"First:\n```\npip install x\n```\nthen\n```py\ndef twice(xs: List[int]):\n{BODY}```",
        f"```python\r\ndef twice(xs):\r\n{BODY}```",
    ],
)
def test_forms_of_a_completion(humaneval, completion):
    assert humaneval.grade(TWICE, completion)["passed"] == 1


def test_a_missing_or_wrong_function_fails(humaneval):
    wrong = ["", "```python\n```", "    return xs\n", "def thrice(xs): return xs", "\0", "\ud800", "[DONE]" + BODY]
    nothing = {"passed": 0, "published": 0, "timeout": 0}
    assert [dict(humaneval.grade(TWICE, w)) for w in wrong] == [nothing] * len(wrong)
    slow = HumanEval(HumanEvalOptions(timeout=1))
    assert dict(slow.grade(TWICE, "    while True: pass")) == nothing | {"timeout": 1}
    slow.close()


PUBLISHED = [
    (BODY, 1),
    (f"{BODY}\n\ndef other(x: # cut off", 1),
    (f"{BODY}\n# a comment (", 1),
    (f"{BODY}\n\nThis doubles each number.\n", 0),
    (BODY.lstrip(), 0),
    (f"```python\n{PROMPT}{BODY}```\nIt doubles.", 1),
    (f"```python\n{PROMPT}{BODY}", 1),
    (f"```python\n{PROMPT}```\n```python\n{PROMPT}{BODY}```", 0),
    (f"```python\ndef twice(xs):\n{BODY}```", 0),
]


@pytest.mark.parametrize(("completion", "published"), PUBLISHED)
def test_the_published_reading_of_humaneval(humaneval, completion, published):
    assert dict(humaneval.grade(TWICE, completion)) == {"passed": 1, "published": published, "timeout": 0}


ADD = Example("x", {"names": ["add"], "setup": "", "imports": "", "tests": ["assert add(2, 3) == 5"]}, "")
PLUS = "def add(x, y):\n    return x + y\n"


@pytest.mark.parametrize(
    ("completion", "passed", "published"),
    [
        (f"[BEGIN]\n{PLUS}[DONE]\nnoise", 1, 1),
        (f"{PLUS}[DONE]\nnoise", 1, 1),
        (f"```python\n{PLUS}```\nIt adds.", 1, 1),
        (f"[BEGIN]\n'{PLUS}'\n[DONE]", 1, 0),
        (f"[BEGIN]\n    {PLUS}[DONE]", 1, 0),
        (f"```python\n```python\n{PLUS}```", 1, 0),
        (f"```python\n{PLUS}```\nNo:\n```python\n{PLUS.replace('+', '-')}```", 0, 1),
        (f"```python\n{PLUS.replace('+', '-')}```", 0, 0),
    ],
)
def test_the_published_reading_of_mbpp(mbpp, completion, passed, published):
    assert dict(mbpp.grade(ADD, completion)) == {"passed": passed, "published": published, "timeout": 0}


@pytest.mark.parametrize(
    ("completion", "runs"), [(BODY, 1), (f"Sure:\n```\n{BODY}```", 1), (f"{BODY}\nx = 1\nif x:\n    x\n", 2)]
)
def test_a_second_program_is_run_only_where_it_is_another_one(humaneval, monkeypatch, completion, runs):
    seen = []
    monkeypatch.setattr(pool, "run", lambda job, limits: seen.append(job) or sandbox.run(job, limits))
    assert humaneval.grade(TWICE, completion)["passed"] == 1 and len(seen) == runs


def test_a_program_may_not_bring_what_the_tests_compare_with():
    reference = "from math import isclose\ndef f(x): 0\ns = 1"
    names, imports = interface(["assert isclose(f(1), 2) and len(g(h)) and s"], reference)
    assert names[0] == "f" and sorted(names) == ["f", "g", "h", "s"] and imports == "from math import isclose"
    assert interface(["assert sum(1, 2) == 3"], "def sum(a, b): return a + b") == (["sum"], "")


def test_pass_at_k_is_the_chance_over_all_draws():
    for n, right in itertools.product(range(1, 6), range(6)):
        outcomes = [i < right for i in range(n)]
        for k in range(1, n + 1):
            draws = list(itertools.combinations(outcomes, k))
            assert pass_at(k, n, min(right, n)) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_aggregate_over_repeats(humaneval):
    grades = {"a": [{"passed": 1.0}, {"passed": 0.0}, {"passed": 0.0}], "b": [{"passed": 0.0}] * 3}
    got = humaneval.aggregate(grades)
    assert got == pytest.approx({"pass@1": 1 / 6, "pass@2": (2 / 3) / 2, "pass@3": 0.5})
    assert humaneval.aggregate({"a": [{"passed": 1.0}]}) == {"pass@1": 1}
    assert humaneval.aggregate({}) == {}


@pytest.mark.parametrize(("task", "field"), [(HumanEval, "entry_point"), (Mbpp, "test_list")])
def test_a_broken_line_17_is_named(tmp_path, task, field):
    rows = {
        HumanEval: {"task_id": "a", "prompt": "p", "entry_point": "f", "canonical_solution": "", "test": "t"},
        Mbpp: {"task_id": 1, "text": "t", "code": "", "test_list": ["assert f()"]},
    }
    row = rows[task]
    lines = [json.dumps(row)] * 16 + [json.dumps({key: value for key, value in row.items() if key != field})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(MdmError, match=rf"a\.jsonl, line 17: {field} is missing"):
        list(task(task.Options()).examples(seed=0, data=tmp_path / "a.jsonl"))


def test_tests_that_are_not_python_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"task_id": 1, "text": "t", "code": "", "test_list": ["assert ("]}))
    with pytest.raises(MdmError, match=r"a\.jsonl, line 1: field 'test_list': not Python"):
        list(Mbpp(MbppOptions()).examples(seed=0, data=tmp_path / "a.jsonl"))


def test_where_nothing_confines_code_none_is_run(monkeypatch):
    monkeypatch.setattr(kernel, "supported", lambda: False)
    with pytest.raises(MdmError, match="generated code runs on Linux"):
        CodeTask(HumanEvalOptions())


@pytest.mark.parametrize(("processes", "share"), [(None, 8), ("1", 8), ("3", 2), ("20", 1), ("", 8), ("many", 8)])
def test_processes_on_one_machine_share_its_cores(monkeypatch, processes, share):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert pool.cores() == share
    threads = pool.Pool(sandbox.Limits())
    assert threads._threads._max_workers == share
    threads.close()
