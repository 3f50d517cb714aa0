"""`math`: the same formula, by huggingface/Math-Verify (SymPy) in a bounded child process (`child.py`).

Ours come first where they are surer (plain numbers, lists of numbers, the same text), and what Math-Verify would read
too kindly never reaches it: words that are no functions (it reads `5 million` as 5), an equation beside a value (it
reads `a + 3z = 0` as 0), marks and units that it drops (`marks.py`), powers and factorials that would take for ever.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Annotated, Literal

from annotated_types import Gt

from tunix_rt.config.section import Unit, section
from tunix_rt.evaluation.child import Child
from tunix_rt.evaluation.lists import is_numeric, read_list, same_list
from tunix_rt.evaluation.marks import bases_clash, formulas_units_clash, same_marks
from tunix_rt.evaluation.numbers import read_number
from tunix_rt.evaluation.plain import bare, plain_text
from tunix_rt.evaluation.scorer import TOO_LONG, Match, Question, Scorer
from tunix_rt.evaluation.scorers.number import NumberScorer
from tunix_rt.evaluation.texts import same_text
from tunix_rt.evaluation.units import units_of
from tunix_rt.files import JsonObject

LONGEST = 600
"""Most characters of a formula that is read."""
DEEPEST = 25
"""Most brackets inside each other."""
_HUGE = re.compile(
    r"(?:\^|\*\*)\s*[{(]*\s*-?[0-9.]{4,}|[0-9)}]\s*(?:\^|\*\*)\s*[{(]*\s*[0-9.]+\s*[)}]*\s*(?:\^|\*\*)"
    r"|[0-9]{4,}\s*!|!\s*!|\)\s*!|[0-9]{400,}|e[+-]?[0-9]{4,}"
)
"""Powers of powers, exponents, factorials and numerals that are not computed."""
_WORD = re.compile(r"(?<![\\a-z])[a-z]{2,}", re.IGNORECASE)
_VARIABLE = re.compile(r"(?<![\\a-z_])(?![eimgshl])[a-z](?![a-z])", re.IGNORECASE)
"""One letter that is no constant and no unit; Math-Verify drops some, as units."""
_FUNCTIONS = frozenset(
    """sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt pi mod gcd lcm max min inf infty
    abs and or frac cup cap begin end pmatrix bmatrix vmatrix matrix cdot times left right det dim ker arg""".split()
)
_SIMPLE = re.compile(
    r"[a-z]\w{0,2}'?(?:_\{?\w{1,5}\}?)?(?:\([a-z0-9, ]{1,12}\))?|\\frac\{[a-z]{1,3}\}\{[a-z]{1,3}\}", re.IGNORECASE
)
_SPAN = re.compile(r"\$\$([^$]+)\$\$|\$(?!\d)([^$]+)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_PROSE = re.compile(r"[A-Za-z ,.:'-]*")
_DENYING = re.compile(
    r"\b(?:not?|never|or|if|unless|wrong|incorrect|than|and|half|twice|minus|plus|times)\b|n't", re.IGNORECASE
)
_NUMBER = NumberScorer(kind="number")


@section
class MathScorer(Scorer):
    """The same number, list or formula: LaTeX, roots, sets and intervals, matrices, equations as wholes. It computes:
    `(9+1)` is 10."""

    kind: Literal["math"]
    max_seconds: Annotated[float, Gt(0), Unit("seconds")] = 5.0
    """Most time for one comparison of formulas; after that it is `too long to judge`."""

    def start(self) -> None:
        """Import SymPy, which takes a second or two."""
        _child().wait()

    def match(self, answer: str, question: Question) -> Match:
        """Compare as numbers, lists, texts, and at last as formulas."""
        if len(answer) > LONGEST or len(question.reference) > LONGEST:
            return Match(False, TOO_LONG)
        answer = _said(answer)
        if read_number(answer) is not None and read_number(question.reference) is not None:
            match = _NUMBER.match(answer, question)
            if match.equal or "," not in answer + question.reference:  # `1,2` may be two values
                return match
        if same_text(answer, question.reference):
            return Match(True, "same text")
        given, right = read_list(answer), read_list(question.reference)
        if given is not None and right is not None and is_numeric(given) and is_numeric(right):
            return Match(equal := same_list(given, right), "same values" if equal else "other values")
        return self._formulas(answer, question.reference)

    def contains(self, completion: str, question: Question) -> bool:
        """As a number or as text: a formula is not looked for in all its forms."""
        return _NUMBER.contains(completion, question)

    def _formulas(self, answer: str, reference: str) -> Match:
        if _too_much(answer) or _too_much(reference):
            return Match(False, TOO_LONG)
        if not _is_formula(answer, reference):
            return Match(False, "not a formula")
        if {_form(answer), _form(reference)} == {"equation", "value"}:
            return Match(False, "an equation and a value")
        if read_number(reference) is not None and _VARIABLE.search(plain_text(answer)):
            return Match(False, "a formula with variables, expected a number")
        if bases_clash(answer, reference) or not same_marks(answer, reference):
            return Match(False, "other formula")
        if formulas_units_clash(answer, reference):
            return Match(False, "other unit")
        found = _asked(_prepared(answer), _prepared(reference), self.max_seconds)
        if found is None:
            return Match(False, TOO_LONG)
        if not found.get("read", False):
            return Match(False, "not a formula")
        return Match(found["equal"], "same formula" if found["equal"] else "other formula")


@cache
def _child() -> Child:
    return Child("tunix_rt.evaluation.formulas")


@lru_cache(maxsize=20_000)
def _asked(answer: str, reference: str, seconds: float) -> JsonObject | None:
    """The child's answer; cached, so that what took too long is tried once."""
    return _child().ask({"answer": answer, "reference": reference}, seconds)


def _too_much(text: str) -> bool:
    depth = deepest = 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        deepest = max(deepest, depth)
    return deepest > DEEPEST or _HUGE.search(text) is not None


@lru_cache(maxsize=20_000)
def _is_formula(answer: str, reference: str) -> bool:
    """Whether every word of the answer is a function's name, a known unit, or in the reference too."""
    known = _FUNCTIONS | {word.casefold() for word in _WORD.findall(reference)}
    plain = plain_text(answer)
    left, _, right = plain.rpartition("=")
    words = {word.casefold() for word in _WORD.findall(right if _SIMPLE.fullmatch(left.strip()) else plain)} - known
    return all(units_of(word) for word in words) and not re.search(r"[?:]|[0-9]{2}0s\b", f"{answer} {reference}")


def _form(text: str) -> Literal["equation", "definition", "value"]:
    """`x + y = 0`, `y = 2x + 1`, or anything else, as `5` and `x = 5`."""
    text = re.sub(r"_\{[^{}]*\}", "_", bare(plain_text(text), brackets=False))  # `\sum_{i=1}` is no equation
    left, equals, right = text.partition("=")
    if not equals or left.strip()[-1:] in "<>!":
        return "value"
    if not _SIMPLE.fullmatch(left.strip()):
        return "equation"
    return "definition" if _VARIABLE.search(right) else "value"


def _said(answer: str) -> str:
    """The formula that a sentence gives between mathematical delimiters, if it gives one only and denies nothing."""
    spans = [match for match in _SPAN.finditer(answer) if match.group().strip("$ ")]
    if len(spans) != 1:
        return answer
    rest = answer[: spans[0].start()] + " " + answer[spans[0].end() :]
    prose = _PROSE.fullmatch(rest.strip()) and not _DENYING.search(rest) and not re.search("[?]", rest)
    return next(filter(None, spans[0].groups())) if prose and rest.strip() else answer


def _prepared(text: str) -> str:
    """In the notation that Math-Verify reads: LaTeX's for roots, π and powers."""
    exact, roughly, _ = text.partition("\\approx")
    text = exact if roughly and not _SIMPLE.fullmatch(exact.strip("$ ")) else text
    text = re.sub(r"\\varnothing|∅", r"\\emptyset", text)
    text = re.sub(r"\\[cd]?dots(?![a-z])|\.\.\.|…|⋯", r"\\ldots", text)
    text = re.sub(r"\^\{?((?:\\prime)+)\}?", lambda found: "'" * found[1].count("prime"), text)
    text = re.sub(r"√\s*(\w|\([^()]*\))", r"\\sqrt{\1}", text).replace("π", "\\pi ").replace("∞", "\\infty ")
    text = re.sub(r"(?<![\\a-z])(pi|sqrt|sin|cos|tan|log|ln)(?![a-z])", r"\\\1", text)
    text = re.sub(r"\\sqrt\(([^()]*)\)", r"\\sqrt{\1}", text)
    return re.sub(r"(?<=[\w)}])\s*\*\s*(?=[\\\w({])", r" \\cdot ", text.replace("**", "^"))


SCORER = MathScorer
