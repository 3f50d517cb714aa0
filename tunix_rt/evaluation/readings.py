"""Other readings of a step whose equations do not hold as they stand: it is wrong only if it holds in none of them.

All were found in the solutions of GSM8K (openai/grade-school-math at 3101c7d) and of the models published with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_NUMBER = r"[$€£]? ?(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)"
_WORDS = r"(?: [a-z]+){1,2}"
_READINGS = [
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # A slip of the pen inside a numeral: `14, 400 / 80`, `.8 + . 84`.
        (r"\b([0-9]{1,3}), (?=[0-9]{3}\b)", r"\1,"),
        (r"(?<=[-+*/×÷=] )\. (?=[0-9])", "."),
        # The result, so many times; not a factor: `100 / 5 = 20 times 2 people have reappeared`.
        (rf"(=\s*{_NUMBER}) times (?=[$€£]?[0-9])", r"\1 times, "),
        # A chain in which the result is converted: `= 12 hours * 60 minutes per hour = 720 minutes`.
        (
            rf"=\s*({_NUMBER}{_WORDS})\s*(?=([*x×])\s*{_NUMBER}{_WORDS}(?: per |/)[a-z]+\s*=)",
            r"= \1, \1 ",
        ),
        (rf"=\s*({_NUMBER})({_WORDS})\s*=\s*(?=\1\s*[*x×]\s*[$€£])", r"= \1\2, "),
        # So many in one: `24 eggs in 1 tray x 2 trays`.
        (r"(?<=[a-z]) (?:in|per|for|from) (?:1|one|each) [a-z]+(?= ?[*x×] ?[0-9])", ""),
        # A day's number: `10 pages per day on day 1 * 2 = 20`.
        (r" (?:on|in|for) (?:day|week|month|year|hour|grade) [0-9]+(?= ?[*x×] ?[0-9])", ""),
        # What a share is of is not said: `48 = 100% + 20%`.
        (rf"{_NUMBER}\s*=\s*(?={_NUMBER}% ?[-+])", ", "),
    )
]

_LEFT_OVER = re.compile(r",? with(?: a)? (?=[^.;=]{0,30}\b(?:remain|left|over))", re.IGNORECASE)
"""What is left over may follow a quotient: `100 / 3 = 33, with 1 remaining`."""


def other_readings(text: str) -> Iterator[str]:
    """The text as it may also be meant, one change at a time."""
    for pattern, replacement in _READINGS:
        changed = pattern.sub(replacement, text)
        if changed != text:
            yield changed


def with_remainder(text: str) -> str:
    """The text in which what is left over of a division is called the remainder."""
    return _LEFT_OVER.sub(" remainder ", text)
