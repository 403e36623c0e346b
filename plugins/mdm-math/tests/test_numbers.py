"""GSM8K: the number in any dress is right; what only looks like it is not."""

from __future__ import annotations

import pytest
from mdm.protocols import Example
from mdm_math.tasks import Gsm8k, Gsm8kOptions

TASK = Gsm8k(Gsm8kOptions())

# Gold answer, whether each text is right, and the texts.
CASES = [
    ('18', True, [
        "####18", "#### 18.", "#### **18**", "#### $18.00", "#### 18 dollars", "#### \\(18\\)",
        "The answer is 18 dollars.", "Answer: $18", "\\[ \\boxed{18} \\]", "\\fbox{18}", "\\boxed 18",
        "<answer>18</answer>", "**Final Answer**\n\n18 dollars",
        "So she makes $9 \\times 2 = \\boxed{\\$18}$ per day.", "The answer is **18**", "*Answer*: _18_",
        "The final answer, in dollars, is \"18\".", "#### €18", "#### 18 €", "#### ≈18", "Answer:\n$$18$$",
        "The answer is $18$.", "She makes 9 * 2 = 18.", "The answer is 9*2 = 18.", "#### 9 * 2 = 18",
        "#### 17\nActually, I made a mistake.\n#### 18", "The answer is 17. Wait, no: the answer is 18.",
        "#### \\text{18}", "Therefore, Janet makes **$18** every day.", "#### 18 eggs per day", "#### 1.8e1",
        "#### 36/2", "#### 018", "The answer is 18.\n\nQ: what?\nA: The answer is 5.", "18<|eot_id|>19",
        "#### 18 \n\n### Next question: 5", "#### 18user\n\nMore?assistant\n\n#### 3",
        "Answer: 16 - 3 - 4 = 9 eggs a day.\nShe makes 9 * 2 = $18 every day.",
        "<think>The answer is 3</think>The answer is 18.", "The answer is x = 18.",
        "The answer is: Janet makes 18 dollars.", "The answer is 18. Let me check: 9*2=18. That is correct.",
        "The answer is 18 minutes, since he has to wait for 2 buses.", "\\boxed{18}\n\nI put it in \\boxed{}.",
        "#### 18%", "The answer is ＄１８.", "#### $\\boxed{18}$", "18", "**Answer:** **18**", "### Answer\n18",
        "#### Answer: 18", "Final answer: \\boxed{\\text{18 dollars}}", "#### 18\n#### 18",
        "So, the answer is $\\$18$.", "Answer: 9 eggs × $2/egg = $18", "#### 9 eggs * $2 = $18 per day",
        "Answer: Janet has 9 eggs. She sells them for $2 each. So she makes $18 a day.", "boxed{18}",
        "#### 18 or $18.00", "\\\\boxed{18}",
        "Answer: She makes 18 dollars. That is 9 eggs at 2 dollars each.", "The answer is 18 dollars since 9 * 2 = 18.",
        "$\\boxed{18}$$\\boxed{18}$$\\boxed{1", "The answer is 18.\nThe answer is 18.\nThe answer is 1",
        "#### 1.8 \\times 10^1",
        "1. 16 - 7 = 9\n2. 9 * 2 = 18\n3. **", "### Step 1\n16-7=9\n### Step 2\n9*2=18\n\n### Step 3:", "#### 18user\n",
        "Not 9. If the answer is 9, the money is left out. It is 18.",
    ]),
    ('18', False, [
        "#### 18.5", "#### -18", "#### 1,8", "#### 180", "#### 18k", "#### 18 or 20", "#### 18 thousand", "#### 17",
        "The answer is not 18.", "The answer is 18. Wait, that is wrong.", "The answer is 18. No, it is 17.",
        "first \\boxed{18}, no wait: \\boxed{17", "#### 18/5", "#### 5:18", "#### 18:30", "#### 18.000.000",
        "#### 17\n\nQuestion: x\nAnswer: 18\n#### 18", "#### 5\nuser\n\nmore?assistant\n\n#### 18", "", "####",
        "\\boxed{18", "16 - 3 = 13", "#### 10-18", "#### 18^2", "#### x18", "#### 1/18", "#### 0.18",
        "The answer is between 18 and 20.", "#### 18 dollars and 50 cents", "#### 1 8", "18 - 1 = 17", "#### −18",
        "#### 18 eggs * $2 = $36", "#### 18 eggs - 9 eggs = 9", "The answer is 36. It cannot be 18.",
        "It is 36. It cannot be 18.",
        "17. An egg costs 2\n18.", "Step 17: it is 5\nStep 18:", "#### 18½", "#### 18²", "#### 18 and a half",
        "#### 18 x 10^2", "#### 18 hundred", "The answer is less than 18", "#### half of 18", "#### twice 18",
        "The answer is more than 18.", "\\boxed{18\\pi}",
        "\\boxed{9} and so \\boxed{18", "The answer is 9. If the answer is 18, then we forgot to divide.",
        "The answer is 9\nThe wrong answer is 18",
    ]),
    ('1450000', True, [
        "#### 1,450,000", "#### 1.45 million", "#### $1,450,000.00", "#### 1 450 000", "#### 1\\,450\\,000",
        "#### 1 450 000", "\\boxed{1{,}450{,}000}", "1450000.",
    ]),
    ('1450000', False, [
        "#### 1.45", "#### 1,450", "#### 1450000.4", "#### 1,450,0000", "#### 1 450 00",
    ]),
    ('1800', True, ["#### 18 hundred"]),
    ('3.5', True, ["#### 3½", "#### 3 and a half", "\\boxed{3\\frac12}"]),
    ('0.5', True, ["½", "#### \\frac12"]),
    ('5', True, ["1. Tom has 2.\n2. Ann has 3.\n3. Together they have 5.", "The total is\n5.", "4\n5"]),
    ('-3', True, [
        "#### -3", "#### −3", "#### – 3", "#### -$3", "#### $-3", "#### -3 dollars", "(-3)", "\\boxed{-3}",
        "The answer is −3.",
    ]),
    ('-3', False, [
        "#### 3", "5 - 3", "#### 5-3",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "right", "text"), [(g, right, text) for g, right, texts in CASES for text in texts])
def test_a_number_is_read_as_it_is_meant(gold, right, text):
    assert TASK.grade(Example("x", {"question": "q", "answer": gold}, ""), text)["accuracy"] == right
