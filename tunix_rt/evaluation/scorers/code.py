"""`code`: a program that passes the tests of its trace. It runs what a model wrote (`sandbox.py`), if allowed."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, Literal

from annotated_types import Gt

from tunix_rt.config.section import Count, Text, Unit, section
from tunix_rt.errors import DataError
from tunix_rt.evaluation.sandbox import Outcome, run_tests
from tunix_rt.evaluation.scorer import Match, Question, Scorer

_FENCE = re.compile(r"\A\s*```[a-zA-Z0-9]*\n(.*?)\n?```\s*\Z", re.DOTALL)


@section
class CodeScorer(Scorer):
    """The tests in the trace's `meta` pass: Python, run in a process with limits, without network where possible. It
    stops accidents, not an attacker: use a container for models that you do not trust."""

    kind: Literal["code"]
    allow_execution: bool = False
    """Must be true: what a model wrote is run on this machine."""
    tests: Text = "tests"
    """Key of `meta` with the tests: Python source, or a list of them, run after the answer in its namespace."""
    max_seconds: Annotated[float, Gt(0), Unit("seconds")] = 10.0
    """Most time for an answer and its tests."""
    max_megabytes: Annotated[Count, Unit("megabytes")] = 1024
    """Most memory."""

    def __post_init__(self) -> None:
        if not self.allow_execution:
            raise ValueError("this scorer runs what a model wrote on this machine; allow_execution: true allows it")

    def judges(self, question: Question) -> bool:
        """Every trace must have tests; a reference is not needed."""
        return True

    def match(self, answer: str, question: Question) -> Match:
        """Run the answer and its tests. Raises DataError if the trace has none."""
        tests = _tests(question.meta.get(self.tests))
        if not tests:
            known = ", ".join(sorted(question.meta)) or "none"
            raise DataError(f"scorer code: a trace has no tests in its meta key {self.tests!r} (it has: {known})")
        outcome = _outcome(program_of(answer), tests, self.max_seconds, self.max_megabytes)
        values = {"tests_passed": outcome.passed / len(tests)}
        if outcome.passed == len(tests):
            return Match(True, f"passes {len(tests)} tests", values)
        return Match(False, f"passes {outcome.passed} of {len(tests)} tests: {outcome.problem}", values)

    def same(self, one: str, other: str) -> bool:
        """The same program, character by character: two programs that pass are not one answer."""
        return program_of(one) == program_of(other)

    def contains(self, completion: str, question: Question) -> bool:
        """Never: a reference program is not looked for."""
        return False


def program_of(answer: str) -> str:
    """The source in an answer, without the fence around it."""
    found = _FENCE.match(answer)
    return (found[1] if found else answer).strip("\n")


def _tests(value: Any) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(test for test in given if isinstance(test, str) and test.strip())


@lru_cache(maxsize=10_000)
def _outcome(program: str, tests: tuple[str, ...], seconds: float, megabytes: int) -> Outcome:
    return run_tests(program, tests, seconds, megabytes)


SCORER = CodeScorer
