"""MATH: what means the same is right, in any dress; what only looks like it is not."""

from __future__ import annotations

import threading

import pytest
from mdm.protocols import Example
from mdm_math.symbolic import Comparer
from mdm_math.tasks import Math500, Math500Options

# Gold answer, whether each box is right, and what the boxes hold.
BOXES = [
    ("2000", False, ["2k", "2K", "2_000", "200", "2000.1"]),
    ("2k", False, ["2000", "2K"]),
    ('\\frac{1}{2}', True, [
        "0.5", "1/2", "\\frac12", "\\dfrac{1}{2}", "\\frac{2}{4}", ".5", "x=\\frac{1}{2}", "50\\%", "\\text{1/2}",
        " 2^{-1}", "1/2 \\text{ units}", "\\$0.50", "1\\div 2",
    ]),
    ('\\frac{1}{2}', False, [
        "0.51", "-\\frac12", "1,2", "12", "\\frac{1}{3}", "0.4999999", "\\frac{1}{2}x", "5", "2",
    ]),
    ('6 - 5i', True, ["6-5\\,i", "6 - 5\\mathrm{i}", "6-5i"]),
    ('6 - 5i', False, ["6+5\\,i", "6-5\\mathrm{j}", "6-5"]),
    ('(5,\\infty)', True, ["(5,+\\infty)", "(5, +∞)"]),
    ('(5,\\infty)', False, ["(5,-\\infty)", "(+\\infty,5)", "[5,+\\infty)"]),
    ('3R^2', True, ["3R²"]),
    ('3R^2', False, ["3R³", "3r²", "3R2"]),
    ('\\frac{\\pi}{2}', True, ["\\frac\\pi2", "\\frac\\pi 2"]),
    ('\\frac{\\pi}{2}', False, ["\\frac\\pi3", "\\frac2\\pi"]),
    ('52_8', True, ["52_{\\text{base 8}}", "52 \\text{ base } 8", "52\\text{ (base 8)}", "52_{(8)}"]),
    ('52_8', False, ["52_{\\text{base 9}}", "52 \\text{ base } 9", "25 \\text{ base } 8", "52_{18}"]),
    ('\\frac{1}{3}', True, [
        "\\frac39", "0.333333", "0.33333333", "1/3",
    ]),
    ('\\frac{1}{3}', False, [
        "0.3333", "0.333", "0.33", "0.334", "0.3333334",
    ]),
    ('0.3333', False, [
        "0.333", "\\frac13", "0.33333",
    ]),
    ('1000000', False, [
        "1000000.4", "1000001", "1000000.0001",
    ]),
    ('1000000', True, [
        "10^6", "1,000,000", "1000000.0", "1\\,000\\,000", "1 000 000", "1 \\times 10^6", "1 million",
    ]),
    ('.0000672', True, [
        "0.0000672", "6.72\\times 10^{-5}", "6.72e-5", "6.72 \\cdot 10^{-5}",
    ]),
    ('.0000672', False, [
        "0.0000674", "0.000067", "0.0000671",
    ]),
    ('10^{-20}', False, [
        "2\\cdot 10^{-20}", "0", "\\frac{3}{10^{20}}",
    ]),
    ('\\sqrt{2}', True, [
        "2^{1/2}", "\\sqrt2", "1.41421", "1.41421356", "√2",
    ]),
    ('\\sqrt{2}', False, [
        "1.41", "1.4142", "1.41422", "\\sqrt{3}", "1.414214001", "2", "\\sqrt{2}+10^{-10}",
    ]),
    ('(2,4)', True, [
        "(2,4)", "(2, 4)", "\\left(2,4\\right)", "(x,y)=(2,4)", "(2,4.0)", "P=(2,4)",
    ]),
    ('(2,4)', False, [
        "[2,4]", "(2,4]", "2,4", "\\{2,4\\}", "(4,2)", "2<x<4", "(2,4,0)", "24", "2.4",
    ]),
    ('1,-2', True, [
        "1,-2", "-2, 1", "\\{1,-2\\}", "x=1,x=-2", "x=1,-2", "1 \\text{ and } -2", "x = 1 \\text{ or } x = -2",
        "-2;1",
    ]),
    ('1,-2', False, [
        "1", "-2", "1,2", "(1,-2)", "1,-2,3", "1,1", "-1,2", "1-2",
    ]),
    ('1 \\pm \\sqrt{19}', True, [
        "1+\\sqrt{19},1-\\sqrt{19}", "1\\pm\\sqrt{19}", "1 ± √19",
    ]),
    ('1 \\pm \\sqrt{19}', False, [
        "1+\\sqrt{19}", "1\\pm\\sqrt{18}", "\\pm\\sqrt{19}",
    ]),
    ('(3,4]', True, [
        "(3,4]", "x \\in (3,4]", "\\left(3,4\\right]",
    ]),
    ('(3,4]', False, [
        "(3,4)", "[3,4]", "3<x\\le 4", "3,4",
    ]),
    ('(-\\infty, 2) \\cup (3, \\infty)', True, [
        "(-\\infty,2)\\cup(3,\\infty)", "(-∞,2)∪(3,∞)", "x\\in(-\\infty,2)\\cup(3,\\infty)",
    ]),
    ('(-\\infty, 2) \\cup (3, \\infty)', False, [
        "(-\\infty,2]\\cup[3,\\infty)", "(-\\infty,2)", "(2,3)", "x<2 \\text{ or } x>3",
    ]),
    ('52_8', True, [
        "52_8", "52_{8}", "(52)_8", "52_{\\text{eight}}",
    ]),
    ('52_8', False, [
        "52_7", "42", "53_8", "528",
    ]),
    ('\\text{Evelyn}', True, [
        "Evelyn", "\\text{Evelyn}", "\\textbf{Evelyn}", "\\mathrm{Evelyn}", "evelyn", "\\text{Evelyn.}",
    ]),
    ('\\text{Evelyn}', False, [
        "Briana", "E", "\\text{Evelyn or Briana}", "nylevE",
    ]),
    ('\\text{(C)}', True, [
        "C", "\\text{C}", "(C)", "\\textbf{(C)}", "\\text{(C)}", "C.",
    ]),
    ('\\text{(C)}', False, [
        "D", "\\text{(D)}", "A, C",
    ]),
    ('90^\\circ', True, [
        "90", "90^\\circ", "90^{\\circ}", "90 \\text{ degrees}", "90°", "\\angle A = 90^\\circ", "90 degrees",
    ]),
    ('90^\\circ', False, [
        "90 \\text{ radians}", "\\frac{\\pi}{2}", "9", "900",
    ]),
    ('\\$36', True, [
        "36", "\\$36", "\\$36.00", "36 \\text{ dollars}", "36 dollars", "$36$",
    ]),
    ('\\$36', False, [
        "36 \\text{ cents}", "\\$3.6", "-36",
    ]),
    ('5.4 \\text{ cents}', True, [
        "5.4", "5.4\\text{ cents}", "5.4 \\text{ cents}.",
    ]),
    ('5.4 \\text{ cents}', False, [
        "\\$5.4", "54",
    ]),
    ('864 \\mbox{ inches}^2', True, [
        "864", "864 \\text{ in}^2", "864 \\text{ square inches}", "864 square inches",
    ]),
    ('864 \\mbox{ inches}^2', False, [
        "864 \\text{ cm}^2", "86",
    ]),
    ('y = 2x + 3', True, [
        "y=2x+3", "2x+3", "y = 3 + 2x", "y-2x=3",
    ]),
    ('y = 2x + 3', False, [
        "y=2x-3", "x=2y+3", "y=3x+2",
    ]),
    ('5', True, [
        "5", "x=5", "5.0", "5.", "\\text{5}", "2+3=5", "f(2) = 5", "10/2", "\\mathbf{5}", "+5", "5\\,", "~5", " 5 ",
        "{5}", "\\textbf{5}", "5\\%", "(5)", "5 \\text{ apples}", "|-5|",
    ]),
    ('5', False, [
        "x+3=5", "5!", "5x", "5,5", "5 million", "\\pm 5", "5\\pi", "5_8", "5^2", "5i", "-5", "55", "5 2",
        "5 \\text{ or } 6", "5\\text{ million}", "\\sqrt{5}", "5/2", "x>5", "x \\ne 5", "5\\frac{1}{2}", "5e2", "0.5",
        "\\{\\}",
    ]),
    ('13535', True, [
        "13,535", "13{,}535", "13\\,535", "13\\;535", "13\\:535", "13\\!535", "13 535", "13 535", "13 535",
        "x=13,535", "13,\\!535", "13535.",
    ]),
    ('13535', False, [
        "13, 535", "13.535", "1,3535", "135,35", "(13,535)",
    ]),
    ('2k+2', True, [
        "2(k+1)", "2k + 2", "2+2k",
    ]),
    ('2k+2', False, [
        "2k+1", "2K+2", "2x+2", "2k",
    ]),
    ('\\begin{pmatrix} -1/3 \\\\ 2/3 \\\\ 5/3 \\end{pmatrix}', True, [
        "\\begin{pmatrix} -\\frac13 \\\\ \\frac23 \\\\ \\frac53 \\end{pmatrix}",
        "\\begin{bmatrix} -1/3 \\\\ 2/3 \\\\ 5/3 \\end{bmatrix}",
    ]),
    ('\\begin{pmatrix} -1/3 \\\\ 2/3 \\\\ 5/3 \\end{pmatrix}', False, [
        "\\begin{pmatrix} 1/3 \\\\ 2/3 \\\\ 5/3 \\end{pmatrix}", "\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}",
    ]),
    ('x \\in [-2,7]', True, [
        "[-2,7]", "x\\in[-2,7]", "\\left[-2,7\\right]",
    ]),
    ('x \\in [-2,7]', False, [
        "(-2,7)", "[-2,7)",
    ]),
    ('6 - 5i', True, [
        "6-5i", "-5i+6",
    ]),
    ('6 - 5i', False, [
        "6+5i", "6-5", "6 - 5j",
    ]),
    ('\\cot x', True, [
        "\\cot x", "\\cot(x)", "\\frac{\\cos x}{\\sin x}", "\\frac{1}{\\tan x}",
    ]),
    ('\\cot x', False, [
        "\\tan x", "\\cot y", "\\cot 2x",
    ]),
    ('\\text{even}', False, [
        "odd", "\\text{neither}", "eve",
    ]),
    ('\\text{east}', False, [
        "seat", "eats", "west",
    ]),
]  # fmt: skip

# The same for whole completions.
TEXTS = [
    ('\\frac{1}{2}', True, [
        "The answer is $\\frac{1}{2}$.", "\\fbox{1/2}", "$\\boxed{\\frac{1}{2}}$.", "**\\boxed{\\frac{1}{2}}**",
        "\\boxed{\\boxed{1/2}}",
    ]),
    ('\\frac{1}{2}', False, [
        "\\boxed{\\frac{1}{2}",
    ]),
    ('(2,4)', True, [
        "The answer is $(2,4)$.",
    ]),
    ('1,-2', True, [
        "$x=\\boxed{1}$ or $x=\\boxed{-2}$", "\\boxed{1} and \\boxed{-2}",
    ]),
    ('\\text{Evelyn}', True, [
        "The answer is Evelyn.",
    ]),
    ('5', True, [
        "\\boxed{5}\nI put it in \\boxed{}.", "first \\boxed{4}, no wait: \\boxed{5}", "The answer is 5",
        "\\boxed{5}\\boxed{5}\\boxed{", "boxed{5}", "\\\\boxed{5}", "\\boxed{5} ï¿½ \\boxed{5", "$$\\boxed{5}$$",
        "\\boxed 5", "x is 5", "```\n\\boxed{5}\n```",
    ]),
    ('5', False, [
        "\\boxed{5", "first \\boxed{5}, no wait: \\boxed{7", "\\boxed{5}. Wait, that's wrong. It should be 7.",
        "\\boxed{6}\n\\boxed{5", "\\boxed{5}\n\\boxed{6", "unboxed{5}", "\\boxed{5}\n\\boxed{6}",
        "The answer is not 5.", "\\boxed{4}\n\nQuestion: y?\n\\boxed{5}", "",
    ]),
]  # fmt: skip


@pytest.fixture(scope="module")
def task():
    task = Math500(Math500Options())
    yield task
    task.close()


@pytest.mark.parametrize(
    ("gold", "right", "text"),
    [(g, right, f"\\boxed{{{text}}}") for g, right, texts in BOXES for text in texts]
    + [(g, right, text) for g, right, texts in TEXTS for text in texts],
)
def test_an_answer_is_read_as_it_is_meant(task, gold, right, text):
    assert task.grade(Example("x", {"question": "q", "answer": gold}, ""), text)["accuracy"] == right


def test_what_is_asked_for_may_be_named(task):
    asked = Example("x", {"question": "Find $m + n$.", "answer": "16"}, "")
    assert task.grade(asked, "\\boxed{m+n=16}")["accuracy"] == 1
    assert task.grade(asked, "\\boxed{m-n=16}")["accuracy"] == 0


def test_a_formula_that_takes_forever_is_not_equal_and_the_next_is_compared():
    """In a thread too, where no signal arrives."""
    comparer, found = Comparer(seconds=2), []
    thread = threading.Thread(target=lambda: found.extend(comparer.same("x+1", t) for t in ("x+10^{10^{10}}", "1+x")))
    thread.start()
    thread.join(timeout=60)
    comparer.close()
    assert found == [False, True]
