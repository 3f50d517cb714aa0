"""What a scorer is: a section of the config that judges an answer against a reference.

To add one: a module in `scorers/` with a section (its `kind` is the module's name) that derives from `Scorer`, and
`SCORER = ThatClass`. The config, the docs, `metrics.json` and the report find it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tunix_rt.errors import RunError, TunixError
from tunix_rt.evaluation.numerals import unify
from tunix_rt.files import JsonObject
from tunix_rt.traces.trace import normalise

TOO_LONG = "too long to judge"


@dataclass(frozen=True, slots=True)
class Match:
    """Whether an answer matches the reference, and why; `values`: further numbers, each averaged in `metrics.json`."""

    equal: bool
    reason: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, and what is known of the answer."""

    reference: str
    prompt: str = ""
    meta: JsonObject = field(default_factory=dict)


class ScorerFailed(RunError):
    """A scorer raised on what a model wrote, which it must not; `reason`: what, in a word."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Scorer:
    """Judges answers. Never raises on what a model wrote; what it read of a reference is cached."""

    __slots__ = ()
    kind: str

    def judges(self, question: Question) -> bool:
        """Whether there is something to compare an answer with; a completion that calls a tool has no answer."""
        return bool(question.reference.strip())

    def start(self) -> None:
        """Start what the first verdict would wait for. Called where verdicts have a time limit."""

    def ask_ahead(self, answers: Iterable[tuple[str, Question]]) -> None:
        """Told once which answers will be judged, a scorer that asks elsewhere may ask for several at once."""

    def match(self, answer: str, question: Question) -> Match:
        """The verdict on `answer`."""
        raise NotImplementedError

    def verdict(self, answer: str, question: Question) -> Match:
        """The same; whatever `match` raises is one clear error. Raises ScorerFailed."""
        try:
            found: object = self.match(answer, question)
            if isinstance(found, Match):
                return found
            reason, what = "no Match", f"it returned {found!r}, not a Match"
        except TunixError:
            raise
        except Exception as error:
            reason = type(error).__name__
            what = f"{reason}: {error}".splitlines()[0]
        raise ScorerFailed(
            f"evaluation.scorers: {self.kind} failed on the answer {answer[:100]!r} ({what}); a scorer judges whatever "
            "a model writes: mend it, then the same command goes on",
            reason,
        )

    def facts(self) -> JsonObject:
        """What else `metrics.json` should say of this scorer, once."""
        return {}

    def same(self, one: str, other: str) -> bool:
        """Whether two answers are one in a vote: the same rule as for the verdict, with one as the reference."""
        return self.verdict(one, Question(other)).equal

    def contains(self, completion: str, question: Question) -> bool:
        """Whether the reference occurs anywhere in `completion`: as complete words, not inside a longer number."""
        reference = _flat(question.reference)
        pattern = rf"(?<!\w)(?<![0-9][.,]){re.escape(reference)}(?!\w)(?![.,][0-9])"
        text = _flat(completion)
        return bool(reference) and reference in text and re.search(pattern, text) is not None


def _flat(text: str) -> str:
    return normalise(unify(text))
