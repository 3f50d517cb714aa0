"""What the steps of a completion are worth together: which hold, which are said twice, which lead nowhere.

Stricter than a reader, so that sound reasoning is not blamed:

- A step is **repeated** if its text is that of an earlier one.
- A step is **unused** if its equations come to values that no later step mentions, nor the answer: not as such, not
  rounded, not as a percentage, not in words, not as the fraction's inverse. Nothing is unused before a later step that
  mentions numbers without an equation that can be read: what it used cannot be told.
- The answer is a **contradiction** of the last step if that has equations which come to other numbers only, and does
  not mention the answer.
- Long addition and multiplication work digit by digit: where nearly every operand is one digit and the answer has more,
  the same step may be needed twice, and a result is used by its digits. Nothing of the above is said of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import ceil, floor
from operator import itemgetter

from boltons.iterutils import bucketize

from tunix_rt.evaluation.numbers import Number, read_number
from tunix_rt.evaluation.numerals import DECIMAL, unify, value_of
from tunix_rt.evaluation.rates import Items, rate
from tunix_rt.evaluation.steps import check_step, results
from tunix_rt.evaluation.words import ONES, TENS
from tunix_rt.files import JsonObject
from tunix_rt.traces.trace import normalise

LONGEST = 2_000
"""Most characters of a step in which numbers are looked for; more of it are not."""
_FRACTION = re.compile(rf"(?:[0-9]+ )?{DECIMAL} ?/ ?{DECIMAL}")
_DECIMAL = re.compile(DECIMAL)
_WORD = re.compile(r"[a-z]+")
_WORDS = ONES | TENS | dict.fromkeys("twice double half halves both pair couple".split(), 2)
_WORDS |= {"thrice": 3, "triple": 3, "dozen": 12, "quarter": 4, "hundred": 100}
_DIGITS = re.compile(r"[^0-9=]*[0-9](?:\s*[-+*×x]\s*[0-9])+\s*=\s*[0-9]{1,2}\s*")
_SCALES = (Fraction(1), Fraction(100), Fraction(1, 100))


def check_steps(steps: Sequence[str], answer: str | None = None) -> JsonObject:
    """The `verdicts` on the steps and their counts, the 0-based places of the `first_wrong` one, of `repeated` and
    `unused` ones, and whether the answer is a `contradiction` of the last (None: cannot be told)."""
    verdicts = [check_step(step) for step in steps]
    number = read_number(answer) if answer is not None else None
    by_digits = number is not None and number.value >= 10 and _by_digits(steps)
    return {
        "num_steps": len(verdicts),
        "num_checked": sum(verdict is not None for verdict in verdicts),
        "num_wrong": verdicts.count(False),
        "first_wrong": verdicts.index(False) if False in verdicts else None,
        "verdicts": verdicts,
        "repeated": [] if by_digits else _repeated(steps),
        "unused": [] if by_digits else sorted(_unused(steps, verdicts, number)),
        "contradiction": None if by_digits or number is None or not steps else _contradicts(steps[-1], number),
    }


def _by_digits(steps: Sequence[str]) -> bool:
    """Whether nearly all steps are bare equations of single digits; a model that has not learnt all garbles some."""
    return 5 * sum(_DIGITS.fullmatch(unify(step)) is not None for step in steps) >= 4 * len(steps)


def _repeated(steps: Sequence[str]) -> list[int]:
    """The places of steps whose text is that of an earlier one but for case and white space."""
    seen: set[str] = set()
    places = []
    for place, text in enumerate(map(normalise, steps)):
        if text in seen:
            places.append(place)
        seen.add(text)
    return places


def _unused(steps: Sequence[str], verdicts: Sequence[bool | None], answer: Number | None) -> Iterator[int]:
    """The places of steps before the last that come to values which nothing behind them uses."""
    later = set() if answer is None else {abs(answer.value)}
    for place in reversed(range(len(steps))):
        mentioned = _mentioned(steps[place])
        if verdicts[place] is None and mentioned:
            return
        found = results(steps[place]) if place < len(steps) - 1 else []
        if found and not any(_forms(value) & later for value in found):
            yield place
        later |= mentioned


def _contradicts(last: str, answer: Number) -> bool | None:
    """Whether the last step comes to other numbers than the answer; None if it has no equation that can be read."""
    found = results(last)
    if not found:
        return None
    mentioned = _mentioned(last) & _forms(answer.value)
    return not mentioned and not any(_forms(value) & {abs(answer.value)} for value in found)


def _forms(value: Fraction) -> set[Fraction]:
    """How a value may be mentioned: as it is, as a percentage or from one, rounded, a fraction upside down."""
    scaled = [abs(value) * scale for scale in _SCALES]
    rounded = [round(form, digits) for form in scaled for digits in (0, 1, 2)] + [floor(abs(value)), ceil(abs(value))]
    inverse = [1 / abs(value)] if 0 < abs(value) < 1 else []
    return {*scaled, *map(Fraction, rounded), *inverse}


def _mentioned(text: str) -> set[Fraction]:
    """The numbers in a text, without signs: decimals, fractions, and whole numbers in words."""
    text = unify(text[:LONGEST]).casefold()
    numerals = {*_DECIMAL.findall(text), *_FRACTION.findall(text)}
    values = {value for numeral in numerals if (value := value_of(numeral)) is not None}
    return values | {Fraction(_WORDS[word]) for word in _WORD.findall(text) if word in _WORDS}


def reasoning(items: Items, judged: Items) -> JsonObject:
    """The rates of `metrics.json` over items with `step_checks`; `judged`: those with a reference to compare with."""
    checked = [item for item in items if item["step_checks"]["num_checked"]]
    decided = [item for item in judged if item["step_checks"]["num_checked"]]
    right, wrong = ([item for item in decided if item["correct"] is verdict] for verdict in (True, False))
    told = [item for item in items if item["step_checks"]["contradiction"] is not None]
    stepped = [item for item in items if item["step_checks"]["num_steps"]]
    return {
        "checked": rate(items, lambda item: item["step_checks"]["num_checked"] > 0),
        "all_steps_right": rate(checked, _holds),
        "right_answer_wrong_steps": rate(right, lambda item: not _holds(item)),
        "wrong_answer_right_steps": rate(wrong, _holds),
        "contradiction": rate(told, lambda item: item["step_checks"]["contradiction"]),
        "repeated": rate(stepped, lambda item: bool(item["step_checks"]["repeated"])),
        "unused": rate(checked, lambda item: bool(item["step_checks"]["unused"])),
        "first_wrong": _first_wrong(checked),
        "by_index": _by_index(items),
    }


def _holds(item: JsonObject) -> bool:
    return bool(item["step_checks"]["num_wrong"] == 0)


def _first_wrong(items: Items) -> JsonObject:
    first = Counter(item["step_checks"]["first_wrong"] for item in items if not _holds(item))
    return {str(place): number for place, number in sorted(first.items())}


def _by_index(items: Items) -> JsonObject:
    judged = [
        {"id": item["id"], "place": place, "right": right}
        for item in items
        for place, right in enumerate(item["step_checks"]["verdicts"])
        if right is not None
    ]
    by_index: dict[int, Items] = bucketize(judged, itemgetter("place"))
    return {str(place): rate(steps, itemgetter("right")) for place, steps in sorted(by_index.items())}
