"""Whether a completion gives the right answer: by meaning, and by the rule the field's harnesses publish."""

from __future__ import annotations

import logging
import re
import threading

NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")


def equivalent(answer: str, completion: str) -> bool:
    """Whether math-verify finds ``answer`` (LaTeX) in the completion. It never raises.

    Its timeouts are signals, which only the main thread may set; in other threads it runs without one.
    """
    from math_verify import parse, verify  # sympy takes a second

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    seconds = 5 if threading.current_thread() is threading.main_thread() else None
    try:
        gold = parse(f"\\boxed{{{answer}}}", parsing_timeout=seconds)
        answers = parse(completion.replace("####", "The final answer is"), parsing_timeout=seconds)
        return bool(verify(gold, answers, timeout_seconds=seconds))
    except Exception:
        return False


def last_number(text: str) -> str | None:
    """The number after ``####`` or the last one, without commas and currency: the published rule of GSM8K."""
    numbers = NUMBER.findall(text.rsplit("####", 1)[-1]) if "####" in text else NUMBER.findall(text)
    if not numbers:
        return None
    number = (numbers[0] if "####" in text else numbers[-1]).replace(",", "").replace("$", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def boxed(text: str) -> str | None:
    """What the last ``\\boxed{}`` holds, braces balanced: the published rule of MATH (Hendrycks et al. 2021)."""
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
