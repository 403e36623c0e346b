r"""The rules by which the papers and their harnesses read an answer, kept as they are: the metric ``published``."""

from __future__ import annotations

import re

NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


def last_number(text: str) -> str | None:
    """The number after ``####`` or the last one, without commas and currency: the published rule of GSM8K."""
    numbers = NUMBER.findall(text.rsplit("####", 1)[-1]) if "####" in text else NUMBER.findall(text)
    if not numbers:
        return None
    number = str(numbers[0] if "####" in text else numbers[-1]).replace(",", "").replace("$", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed{}`` holds, braces balanced: the published rule of MATH (Hendrycks et al. 2021)."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for at in range(start + 6, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start + 7 : at]
    return None


def normal(answer: str) -> str:
    """LaTeX without what does not change a number: spaces, sizes, units, dollar signs."""
    answer = re.sub(r"\\(?:left|right|!|,|;|:|quad)(?![a-zA-Z])|\\\s|\s|\\?\$|\^\{?\\circ\}?|\\?%", "", answer)
    answer = re.sub(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}", r"\1", answer)
    answer = re.sub(r"\\[td]frac", r"\\frac", answer).rstrip(".")
    return re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", answer)
