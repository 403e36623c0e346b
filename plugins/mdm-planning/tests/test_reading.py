"""Equations and grids are read in any dress; what only looks right is not."""

from __future__ import annotations

import pytest
from mdm.protocols import Example
from mdm_planning.countdown import Countdown, CountdownOptions
from mdm_planning.equations import Equations, EquationsOptions
from mdm_planning.sudoku import Sudoku, SudokuOptions

TASKS = {
    "countdown": Countdown(CountdownOptions()),
    "sudoku": Sudoku(SudokuOptions()),
    "equations": Equations(EquationsOptions()),
}
PUZZLE, GRID, HOLES = "3102200002100320", "3142243142131324", "1_*_4=4_8"
FIRST = "17,40,81,58"

RIGHT_STEPS = [
    "First, 40 - 17 = 23. Then 81 - 23 = 58.", "Step 1: 40 - 17 = 23\nStep 2: 81 - 23 = 58",
    "**40-17=23**, **81-23=58**", "- 40 - 17 = 23\n- 81 - 23 = 58", "\\[40-17=23\\]\n\\[81-23=58\\]",
    "1) 40-17=23\n2) 81-23=58", "`40-17=23,81-23=58`", "40-17=23 and 81-23=58",
    "The equations are: 40 − 17 = 23, 81 − 23 = 58.", "81-(40-17)=58",
    "First try: 17+40=57, 57+81=138. Too large.\nSo: 40-17=23, 81-23=58",
    "40-17=23,81-23=58\n\nQuestion: 1,2,3\n1+2=3", "40-17=23\n\n81-23=58\n\nThe result is 58.",
    "\\boxed{40-17=23, 81-23=58}", "40-17=23,81-23=58<|im_end|>", "$$40-17=23,\\quad 81-23=58$$",
    "40-17=23, 81-23=58 (all numbers used)", "Answer: 40-17=23; 81-23=58", "| 40-17=23 |\n| 81-23=58 |",
    "40-17=23,81-23=58\nuser\n1+1=2", "(40-17)=23, 81-23=58", "40-17=23,81-23=58user\n\n", "40-17=23,81-23=58assistant",
    "That is wrong. 40-17=23, 81-23=58", "1) 40-17=23 2) 81-23=58", "40-17=23,81-23=58,40-17=23,81-23=58",
    "40-17=23,81-23=58 40-17=23,81-23=58", "40-17=23,81-23=58\nEquations: 40-17=23,81-23=58\nEquations: 40-17=23,81-2",
    "40-17=23,81-23=58\n\nLet me check: 81 - 23 = 58. Correct!", "81 - (40 - 17) = 81 - 23 = 58",
    "81 - 40 + 17 = 41 + 17 = 58",
]  # fmt: skip
WRONG_STEPS = [
    "40-17=23", "40-17=23,81-23=59", "40-17=24,81-23=58", "40-17=23,81-23=58,58+0=58", "4 0-17=23,81-23=58",
    "40-17=2381-23=58", "40-17=23,81-23=58. Wait, that is wrong.", "40-17=23,40-17=23,81-23=58",
    "40.0-17=23,81-23=58", "40-17=23,81-23=58.5", "81-23=58", "17-40=-23,81+-23=58", "140-17=123,81-23=58",
    "81 - 40 + 17 = 42 + 17 = 58", "40-17=81-58=23", "40-17=23+35=58", "40-17=23,81-23=58,81-23=58",
    "40-17=23,81-23=58\nEquations: 40-17=23,81-23=59", "40-17=23=23,81-23=58x", "40-17≈23,81-23=58", "81-40-17=58",
    "40+17-81=58", "x40-17=23,81-23=58",
]  # fmt: skip
# Other puzzles, their completions, and whether these are right.
STEPS = [
    ("600,2,50,1150", "600*2=1,200,1200-50=1150", True),
    ("30,40,1200", "30*40=1{,}200", True),
    ("5,9,45", "5 x 9 = 45", True),
    ("5,9,45", "5\\times9=45", True),
    ("90,2,45", "90÷2=45", True),
    ("7,2,2,6", "7/2=3,3*2=6", False),
    ("7,2,2,7", "7/2=3.5,3.5*2=7", False),
    ("5,2,10", "1,5*2=10", False),
    ("5,2,1", "0.5*2=1", False),
    ("15,2,30", "15*2=30", True),
    ("15,2,30", "1.5*2=3.0", False),
    ("15,2,3", "1.5*2=3", False),
]  # fmt: skip
RIGHT_GRIDS = [
    "3142243142131324", "3142\n2431\n4213\n1324", "3 1 4 2\n2 4 3 1\n4 2 1 3\n1 3 2 4",
    "| 3 | 1 | 4 | 2 |\n| 2 | 4 | 3 | 1 |\n| 4 | 2 | 1 | 3 |\n| 1 | 3 | 2 | 4 |",
    "```\n3 1 4 2\n2 4 3 1\n4 2 1 3\n1 3 2 4\n```", "**3142**\n**2431**\n**4213**\n**1324**",
    "**3** **1** **4** **2**\n**2** **4** **3** **1**\n**4** **2** **1** **3**\n**1** **3** **2** **4**",
    "Here is the solution:\n\n3142\n2431\n4213\n1324\n\nEvery row is valid.",
    "[[3,1,4,2],[2,4,3,1],[4,2,1,3],[1,3,2,4]]", "[3, 1, 4, 2],\n[2, 4, 3, 1],\n[4, 2, 1, 3],\n[1, 3, 2, 4],",
    "+--+--+\n|31|42|\n|24|31|\n|42|13|\n|13|24|\n+--+--+",
    "Puzzle:\n3102\n2000\n0210\n0320\nSolution:\n3142\n2431\n4213\n1324",
    "Row 1: 3 1 4 2\nRow 1: 2 4 3 1\nRow 1: 4 2 1 3\nRow 1: 1 3 2 4", "Solution: 3142243142131324",
    "**3142243142131324**", "The solution is 3142243142131324.",
    "3 1 | 4 2\n2 4 | 3 1\n----+----\n4 2 | 1 3\n1 3 | 2 4", "3142243142131324\n0140432014020000:1111222233334444",
    "| a | b | c | d |\n|---|---|---|---|\n| 3 | 1 | 4 | 2 |\n| 2 | 4 | 3 | 1 |\n| 4 | 2 | 1 | 3 |\n| 1 | 3 | 2 | 4 |",
    "3102\n2000\n0210\n0320\n3142\n2431\n4213\n1324",
    "\\begin{matrix}\n3 & 1 & 4 & 2 \\\\\n2 & 4 & 3 & 1 \\\\\n4 & 2 & 1 & 3 \\\\\n1 & 3 & 2 & 4\n\\end{matrix}",
    "\\begin{bmatrix}3 & 1 & 4 & 2 \\\\ 2 & 4 & 3 & 1 \\\\ 4 & 2 & 1 & 3 \\\\ 1 & 3 & 2 & 4\\end{bmatrix}",
    "\\begin{array}{|c|c|c|c|}\n\\hline\n3 & 1 & 4 & 2 \\\\\n\\hline\n2 & 4 & 3 & 1 \\\\\n\\hline\n4 & 2 & 1 & 3 \\\\\n"
    "\\hline\n1 & 3 & 2 & 4 \\\\\n\\hline\n\\end{array}", "<answer>3142243142131324</answer>",
    "solution = [[3, 1, 4, 2], [2, 4, 3, 1], [4, 2, 1, 3], [1, 3, 2, 4]]", "Grid: 3142/2431/4213/1324",
    "First row: 3142\nSecond row: 2431\nThird row: 4213\nFourth row: 1324", "3142\n2431\n4213\n1324assistant",
    "3142\n2431\n4213\n1324.",
    "| | C1 | C2 | C3 | C4 |\n|---|---|---|---|---|\n| R1 | 3 | 1 | 4 | 2 |\n| R2 | 2 | 4 | 3 | 1 |\n"
    "| R3 | 4 | 2 | 1 | 3 |\n| R4 | 1 | 3 | 2 | 4 |", "3102200002100320:3142243142131324",
    "3 1 4 2 \n2 4 3 1 \n4 2 1 3 \n1 3 2 4", "3142, 2431, 4213, 1324", "1. 3142\n2. 2431\n3. 4213\n4. 1324",
]  # fmt: skip
WRONG_GRIDS = [
    "314224314213132", "3142243142131323", "3102\n2000\n0210\n0320", "3102200002100320", "3142\n2431\n4213",
    "31422431421313241", "3142\n2431\n4213\n1324\n1234", "31424\n2431\n4213\n1324", "1234341221434321",
    "3142\n2431\n4213\n1324\nWait, that is wrong.", "3142\n2431\n4213\n1324\n\nCorrected:\n3142\n2431\n4213\n1342",
    "solution = [[3, 1, 4, 2], [2, 4, 3, 1], [4, 2, 1, 3], [1, 3, 4, 2]]", "Grid: 3142/2431/4213/1324/1",
    "3142\nthen\n2431\n4213\n1324", "3.142\n2431\n4213\n1324", "3142\n2431\n4213\n132",
]  # fmt: skip
RIGHT_EQUATIONS = [
    "12*34=408", "12 * 34 = 408", "12 × 34 = 408", "$12 \\times 34 = 408$", "**12*34=408**", "`12*34=408`",
    "The equation is 12*34=408.", "Answer: 12x34=408", "```\n12*34=408\n```", "\\boxed{12 \\cdot 34 = 408}",
    "12*34=408\n\nQuestion: 1*1=1", "12*33=396? No. 12*34=408", "12\\*34=408", "<answer>12*34=408</answer>",
    "12*34=408 (12, 34, 408)", "12*34=408user",
]  # fmt: skip
WRONG_EQUATIONS = [
    "12*34=408.5", "112*34=408", "12*34=4080", "12*34=409", "13*34=442", "12*34=408*1", "1.2*34=408", "12*34=40 8",
    "12*34=408. Wait, that is wrong.", "12*34=408, or rather 13*34=442", "-12*34=408", "12+34=408", "12*34", "",
    "12*34=408(2)", "12*34=408=408", "2*12*34=408", "5 - 12*34=408",
]  # fmt: skip

CASES = [
    *[("countdown", FIRST, text, True) for text in RIGHT_STEPS],
    *[("countdown", FIRST, text, False) for text in WRONG_STEPS],
    *[("countdown", *case) for case in STEPS],
    *[("sudoku", PUZZLE, text, True) for text in RIGHT_GRIDS],
    *[("sudoku", PUZZLE, text, False) for text in WRONG_GRIDS],
    *[("equations", HOLES, text, True) for text in RIGHT_EQUATIONS],
    *[("equations", HOLES, text, False) for text in WRONG_EQUATIONS],
]


@pytest.mark.parametrize(("task", "puzzle", "text", "right"), CASES)
def test_an_answer_is_read_as_it_is_meant(task, puzzle, text, right):
    assert TASKS[task].grade(Example("x", {"puzzle": puzzle}, GRID), text)["accuracy"] == right


@pytest.mark.parametrize(
    ("text", "accuracy", "published"),
    [("40-17=23,81-23=58", 1, 1), ("40 - 17 = 23, 81 - 23 = 58\n", 1, 1), ("40-17=23\n81-23=58", 1, 0),
     ("Equations: 40-17=23,81-23=58", 1, 0), ("81-(40-17)=58", 1, 0), ("40-17=23,81-23=59", 0, 0)],
)  # fmt: skip
def test_the_published_form_is_nothing_but_equations_between_commas(text, accuracy, published):
    grades = TASKS["countdown"].grade(Example("x", {"puzzle": FIRST}, ""), text)
    assert grades == {"accuracy": accuracy, "published": published}
