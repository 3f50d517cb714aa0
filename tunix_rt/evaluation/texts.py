"""Texts compared without what only frames them: white space, case, quotes, Markdown, a full stop.

Also the same are ratios (`3 to 4`, `3:4`), times of day (`10:30am`, `10:30 AM`) and quantities of several units
(`3 hours 20 minutes`, `3 h and 20 min`), each part by part: neither reduced (`6:8` is not `3:4`) nor converted.
An exclamation or question mark stays: it is said. Word F1 is that of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250,
section 6.1) over these texts; articles count.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from tunix_rt.evaluation.numbers import Number, read_number, same_value, units_clash
from tunix_rt.evaluation.numerals import unify
from tunix_rt.evaluation.plain import LONGEST, bare, plain_text
from tunix_rt.traces.trace import normalise

_CLOCK = re.compile(r"(?<=[0-9]) ?([ap])\.? ?m\b\.?")
_RATIO = re.compile(r"(?<=[0-9]) ?(?::| to ) ?(?=[0-9])")
_SIGN = re.compile(r" ?([^\w\s'\".!?]) ?")
"""White space around it makes no difference: `(1, 2)` is `(1,2)`."""
_NUMBERS = re.compile(r" ?[0-9.]+(?::[0-9.]+)+")
_PART = re.compile(
    r"([-+]?(?:[$€£] ?)?[0-9][0-9.,/]*) ?([^\W\d_]+\.?|['\"°])(?:,? (?:and )?|$|(?<=['\"°]))", re.IGNORECASE
)


@lru_cache(maxsize=20_000)
def normal_text(text: str) -> str:
    """The text without its frame; of one longer than `LONGEST` only white space and case are normalised."""
    if len(text) > LONGEST:
        return normalise(unify(text))
    plain = bare(plain_text(text), brackets=False).casefold()
    plain = _RATIO.sub(":", _CLOCK.sub(r" \1m", plain))
    names, _, numbers = plain.rpartition("=")
    if ":" in names and _NUMBERS.fullmatch(numbers):  # `V_1:V_2 = 3:4`
        plain = numbers
    return " ".join(_SIGN.sub(r"\1", plain).split())


def same_text(one: str, other: str) -> bool:
    """Whether two texts are the same but for their frame, or the same quantities of the same units."""
    if normal_text(one) == normal_text(other):
        return True
    parts, others = _quantities(one), _quantities(other)
    if not parts or len(parts) != len(others):
        return False
    return all(not units_clash(a, b) and same_value(a, b) for a, b in zip(parts, others, strict=True))


def word_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words; 1.0 if both have none."""
    words, wanted = (Counter(re.findall(r"\w+", normal_text(text))) for text in (answer, reference))
    if not words or not wanted:
        return float(words == wanted)
    common = (words & wanted).total()
    return 2 * common / (words.total() + wanted.total())


@lru_cache(maxsize=20_000)
def _quantities(text: str) -> tuple[Number, ...]:
    """The parts of a quantity in several units; empty if it is none."""
    text = bare(plain_text(text), brackets=False) if len(text) <= LONGEST else ""
    parts, place = [], 0
    while place < len(text):
        match = _PART.match(text, place)
        number = read_number(f"{match[1]} {match[2]}") if match else None
        if match is None or number is None or not number.units:
            return ()
        parts.append(number)
        place = match.end()
    return tuple(parts) if len(parts) > 1 else ()
