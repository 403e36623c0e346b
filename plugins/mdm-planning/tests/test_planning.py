"""Problems are solvable, graders check rules, and files are read as they are or refused by line and field."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from mdm.errors import MdmError
from mdm.protocols import MASK, Example
from mdm_planning.countdown import SHOTS as COUNTDOWNS, Countdown, CountdownOptions, published
from mdm_planning.equations import Equations, EquationsOptions, true
from mdm_planning.judgment import Judgment, JudgmentOptions
from mdm_planning.steps import compute
from mdm_planning.sudoku import SHOTS, UNITS, Sudoku, SudokuOptions, grids, solved

DATA = Path(__file__).parents[4] / "shared" / "data"
TASKS = [
    Sudoku(SudokuOptions()),
    Sudoku(SudokuOptions(mode="generate", blanks=5)),
    Countdown(CountdownOptions()),
    Countdown(CountdownOptions(numbers=4)),
    Equations(EquationsOptions()),
    Equations(EquationsOptions(operation="both", given=0)),
    Judgment(JudgmentOptions()),
    Judgment(JudgmentOptions(terms=9, verdict="last")),
]


def first(task, count, seed=0):
    return list(itertools.islice(task.examples(seed=seed), count))


@pytest.mark.parametrize("task", TASKS, ids=lambda t: f"{type(t).__name__}-{t.options}")
def test_every_generated_problem_is_solved_by_its_reference(task):
    examples = first(task, 50)
    assert all(task.grade(e, e.reference)[task.metric] == 1 for e in examples)
    assert len({e.id for e in examples}) == 50
    assert first(task, 50) == examples
    assert [e.inputs for e in first(task, 50, seed=1)] != [e.inputs for e in examples]


@pytest.mark.parametrize("style", ["chat", "compact"])
@pytest.mark.parametrize("task", TASKS, ids=lambda t: f"{type(t).__name__}-{t.options}")
def test_the_answer_fits_its_prompt(task, style):
    for example in first(task, 20):
        prompt = task.prompt(example, style)
        if prompt.gen_length:
            assert prompt.answer == "" and len(example.reference) <= prompt.gen_length
            continue
        filled = iter(example.reference.replace("\n", ""))
        shown = prompt.answer.replace(MASK, "_")
        made = "".join(c if c == "\n" else next(filled) for c in shown)
        assert all(c in ("_", m) for c, m in zip(shown, made, strict=True)) and "_" in shown
        assert task.grade(example, made)[task.metric] == 1


@pytest.mark.parametrize("task", TASKS, ids=lambda t: f"{type(t).__name__}-{t.options}")
@given(completion=st.one_of(st.text(max_size=40), st.text("0123456789+-*/=,_ \n", max_size=40)))
def test_a_strange_completion_is_graded_not_raised(task, completion):
    [example] = first(task, 1)
    assert all(0 <= score <= 1 for score in task.grade(example, completion).values())


def test_the_answer_that_is_graded_can_be_shown():
    example = Example("e", {"puzzle": "_2*3=3_"}, "12*3=36")
    assert Equations(EquationsOptions()).answer(example, "That is 11*3=33. No, so 12 x 3 = 36.") == "12*3=36"
    assert Equations(EquationsOptions()).answer(example, "I cannot tell.") is None
    sudoku, [example] = Sudoku(SudokuOptions()), first(Sudoku(SudokuOptions()), 1)
    assert sudoku.answer(example, f"Solution: {example.reference}").replace("\n", "") == example.reference
    assert sudoku.answer(example, "none") is None


def test_there_are_288_grids():
    assert len(set(grids())) == 288 and all(solved(g) for g in grids())


@given(st.permutations(range(4)).map(lambda p: "".join("1234"[i] for i in p)), st.integers(0, 287), st.integers(0, 15))
def test_a_sudoku_is_valid_by_its_rules(names, number, cell):
    grid = grids()[number].translate(str.maketrans("1234", names))
    assert solved(grid)
    spoilt = grid[:cell] + ("1" if grid[cell] != "1" else "2") + grid[cell + 1 :]
    assert not solved(spoilt)
    assert any(len({spoilt[i] for i in unit}) < 4 for unit in UNITS)


def test_any_valid_grid_counts_but_the_clues_are_kept():
    task = Sudoku(SudokuOptions())
    puzzle = "0" * 15 + grids()[0][15]
    [example] = first(task, 1)
    example = type(example)(example.id, {"puzzle": puzzle}, grids()[0])
    others = [g for g in grids() if g[15] == puzzle[15]]
    assert len(others) == 72 and all(task.grade(example, g)["accuracy"] == 1 for g in others)
    assert all(task.grade(example, g)["accuracy"] == 0 for g in grids() if g[15] != puzzle[15])


def test_the_shown_examples_are_right():
    assert all(published(problem, answer) for problem, answer in COUNTDOWNS)
    for puzzle, solution in SHOTS:
        assert solved(solution) and all(p in ("0", s) for p, s in zip(puzzle, solution, strict=True))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("44-15=29,79-29=50", True),
        ("79-44=35,35+15=50", True),  # another way
        ("79-44=35,35+15=51", False),  # not true
        ("79-29=50", False),  # 29 is no number of the problem
        ("44-15=29", False),  # not all used
        ("44-15=29,79-29=50,50+50=100", False),
        ("44-15=29,44-15=29,79-29=50", False),  # used twice
        ("15-44=29,79-29=50", False),  # negative
        ("", False),
    ],
)
def test_countdown_checks_the_arithmetic(answer, right):
    assert published("15,44,79,50", answer) is right
    assert (TASKS[2].grade(Example("x", {"puzzle": "15,44,79,50"}, ""), answer)["accuracy"] == 1) is right


@given(st.integers(0, 200), st.sampled_from("+-*/"), st.integers(0, 200))
def test_steps_are_natural_arithmetic(a, operator, b):
    result = compute(a, operator, b)
    if result is not None:
        back = {"+": result - b, "-": result + b, "*": result, "/": result * b}[operator]
        assert result >= 0 and back == (a * b if operator == "*" else a)


@pytest.mark.parametrize(
    ("equation", "right"),
    [("12*34=408", True), ("12*34=409", False), ("12+34=46", True), ("12*34=0408", False), ("02*34=68", False),
     ("12*34408", False), ("", False)],
)  # fmt: skip
def test_equations_are_true_and_plain(equation, right):
    assert true(equation) is right


def test_another_true_equation_counts_if_it_keeps_the_digits():
    task = Equations(EquationsOptions())
    [example] = first(task, 1)
    example = type(example)(example.id, {"puzzle": "__*_0=4_0"}, "12*40=480")
    assert task.grade(example, "12*40=480")["accuracy"] == task.grade(example, "24*20=480")["accuracy"] == 1
    assert task.grade(example, "13*40=520")["accuracy"] == 0


@pytest.mark.parametrize(
    ("task", "name"),
    [(TASKS[0], "sudoku_4x4.csv"), (TASKS[2], "countdown_cd3_test.jsonl"), (TASKS[3], "countdown_cd4_test.jsonl")],
)
def test_published_files_are_read_and_their_answers_are_right(task, name):
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not here")
    examples = list(task.examples(seed=0, data=DATA / name))
    assert len(examples) >= 500
    assert all(task.grade(e, e.reference)["accuracy"] == 1 for e in examples)


@pytest.mark.parametrize(
    ("task", "name", "text", "said"),
    [
        (TASKS[0], "a.csv", "Puzzle,Solution\n310220000210032,3142243142131324\n", "line 2: Puzzle="),
        (TASKS[0], "a.csv", "Puzzle,Solution\n3102200002100320,1142243142131324\n", "line 2: Solution"),
        (TASKS[0], "a.csv", "Puzzle\n3102200002100320\n", "line 2: Solution"),
        (TASKS[0], "a.csv", "Puzzle,Solution\n", "no example"),
        (TASKS[2], "a.jsonl", '{"input": "1,2,3,6"}\n{"input": "1,2"}\n', "line 2: input="),
        (TASKS[2], "a.jsonl", '{"input": "1,2,3,6"}\n\n{"input": ', "line 3: not JSON"),
        (TASKS[4], "a.jsonl", '{"input": "12*34=408"}\n', "line 1: input"),
        (TASKS[4], "a.jsonl", '{"output": "12*34=408"}\n', "line 1: input"),
        (TASKS[4], "a.jsonl", "[1]\n", "line 1: should be a valid dictionary"),
    ],
)
def test_a_broken_file_is_named_with_line_and_field(tmp_path, task, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(MdmError) as error:
        list(task.examples(seed=0, data=tmp_path / name))
    assert said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MdmError, match=r"none\.csv: there is no such data file"):
        list(TASKS[0].examples(seed=0, data=tmp_path / "none.csv"))
