"""The letter that a completion settles on, in any dress; and texts that settle on none."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from mdm_gpqa import published_letter
from mdm_gpqa.letters import settled_letter

LETTERS = {
    "B": [
        "B", "(B)", "B)", "B.", "b", "(b)", "**B**", "`B`", "$B$", "\\boxed{B}", "\\boxed{\\text{B}}",
        "\\boxed{\\textbf{(B)}}", "\\boxed{\\mathrm{B}}", "\\boxed{B) 10^{-4} eV}", "\\fbox{B}", "\\boxed B",
        "\\[\\boxed{B}\\]", "Answer: B", "Answer: (B)", "ANSWER: B", "**Answer**: B", "**Answer:** **B**",
        "Answer: **B**. 10^-4", "Answer - B\nThe answer is (B)", "The answer is B", "The answer is: (B)",
        "The answer is (B) 10^-4 eV", "The answer is **(B)**.", "The answer is option (B).",
        "The correct answer is choice B", "the answer is b.", "The answer is (b).", "Answer: b",
        "option B is correct", "Option (B) is the correct answer.", "(B) is the right choice.",
        "So, (B) is correct.", "Therefore, the best option is B: the second law.", "I would choose (B).",
        "I'll go with option B.", "Thus option B.", "so the answer must be B", "The final answer is $\\boxed{B}$",
        "<answer>B</answer>", "<answer> (B) text </answer>", "**Final Answer**\n\nB. 10^-4 eV",
        "## Final Answer\n\n**(B)**", "Final answer: B", "The answer is 'B'.", "The answer is “B”.",
        "The answer is \\(B\\).", "The answer is [B].", "The answer is {B}",
        "(A) is wrong because of parity. (C) and (D) violate conservation. So it must be (B).",
        "A) no. B) yes.\nThe answer is (B)", "The answer is (A). Wait, that is wrong. The answer is (B).",
        "The answer is not (A) but (B).", "The answer is (B), not (A).",
        "The answer is (B)\n\nQuestion: next?\nThe answer is (C)", "The answer is (B)<|im_end|>(C)",
        "B)\n\nQuestion: foo", "B) because A) is false", "#### B", "The answer is B because it is hot",
        "The answer is B, since A is wrong.", "Let me think... eliminating (A), (C) and (D) leaves (B).",
        "only option B remains", "The correct choice would be: B", "Answer: B — the second law",
        "\\boxed{B}\nI gave it in \\boxed{}", "Correct option: B", "The answer choice is (B)", "My answer: B",
        "The answer is (B). (A) is wrong, (C) is wrong, and (D) is wrong.",
        "The answer is (B). Let me double-check: yes, this is correct.", "The answer is:\n\n(B) 10^-4",
        "Answer: (B) A proton", "Answer: B) A proton", "answer is ( B )", "The answer is **B) the second law**",
        "The answer is <b>B</b>", "The answer would be (B)", "The right answer is (B)", "ANSWER: (B)",
        "The answer is （B）.", "B: 10^-4 eV", "B - 10^-4 eV", "the answer is option b",
        "The correct statement is (B)", "My final choice is B", "Answer: B (10^-4 eV)",
        "B. 10^-4 eV\n\nExplanation: (A) and (C) are energies.",
        "(B) 10^-4 eV\n\nSo (A) does not fit and (C) is no energy.",
        "B\n\nThe reason is that A is too small.", 
        "\\boxed{B}\n\n\\boxed{B}\n\n\\boxed{", "boxed{B}",
    ],
    None: [
        "", "I cannot decide.", "A proton is emitted.", "Answer: A proton", "The answer is A proton.",
        "The answer is 42", "The answer is A or B", "Either (A) or (B)", "The answer is (A) or (B).",
        "\\boxed{A, B}", "A) 1 eV\nB) 2 eV\nC) 3 eV\nD) 4 eV", "A) is odd.\nB) is even.", "The answer is not (B).",
        "B) cannot be, since mass is conserved.", "(B) is wrong.", "The answer is D-glucose", "The answer is (E)",
        "(A) is wrong. (B) involves", "The answer is (B). Wait, that is wrong.", "\\boxed{B", "A cat", "Be careful",
        "C.H. Jones found it", "The answer is a proton", "I think DNA", "(A), (B), (C) and (D) are possible",
        "The answer is either B or C", "Option A says x. Option B says y.", "Answer: A/B", "ABCD",
        "Now consider (B)", "Let's consider (C):", "Next, we analyze option B.", "For (B), we need to compute",
        "In option (B) the energy is", "Comparing with (B), we see", "Option B:", "(B) would require",
        "All except (B).",
        "The answer is everything except (B)", "Is the answer (B)? No.", "The incorrect answer is (B)",
        "The wrong option is (B).",
        "The answer is unlikely to be (B).", "A is too small.\n\nB is", "(A) gives 5 eV.\n\nThe other",
        "Answer: Both A and B", "The answer is neither (A) nor (B).", "The answer is B cells", "Answer: C-H bond",
    ],
    "A": [
        "A", "Answer: A", "Answer: A. A proton", "The answer is A.", "The answer is A because", "(a)", "\\boxed{A}",
        "\\boxed{A. A proton}", "The answer is (A) A proton", "A is correct.", "A) A proton", "a",
    ],
    "C": [
        "A) is wrong because of parity. B) is wrong too. The answer is (C)",
        "Answer: A proton is emitted, so option C.", "A) 1 eV\nB) 2 eV\nC) 3 eV\nD) 4 eV\n\nThe answer is (C).",
        "It is not (A), and (B) is false. Hence (C).", "first (B), no wait, the answer is C",
        "\\boxed{B} Hmm, actually, wait. \\boxed{C}", "The answer is (B). Actually, the answer is (C)",
        "The answer is B. Wait, it should be (C).",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("letter", "text"), [(letter, text) for letter, texts in LETTERS.items() for text in texts])
def test_the_letter(letter, text):
    assert settled_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [("The answer is (B)", "B"), ("(A) is wrong. The answer is (C).", "C"), ("(A) is wrong, it is (C)", "A"),
     ("The answer is B", None), ("Answer: (D)", "D"), ("the answer is (C) ... answer is (A)", "C")],
)  # fmt: skip
def test_the_rule_of_the_authors(text, letter):
    assert published_letter(text) == letter


@given(st.one_of(st.text(max_size=60), st.text("ABCDab()., \n*answer is\\boxed{}", max_size=60)))
def test_a_strange_completion_is_read_not_raised(text):
    assert settled_letter(text) in ("A", "B", "C", "D", None)
