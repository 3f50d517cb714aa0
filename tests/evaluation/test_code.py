"""Programs against their tests, in a sandbox."""

from __future__ import annotations

import pytest

from tests.evaluation.scorers import scorer
from tunix_rt.errors import ConfigError, DataError
from tunix_rt.evaluation.sandbox import run_tests
from tunix_rt.evaluation.scorer import Match, Question
from tunix_rt.evaluation.scorers.code import CodeScorer

GOOD = "def double(x):\n    return 2 * x"
TESTS = ["assert double(2) == 4", "assert double('a') == 'aa'"]


def judged(answer: str, tests: object = TESTS) -> Match:
    code = scorer("code", allow_execution=True, max_seconds=2.0, max_megabytes=512)
    return code.match(answer, Question("", meta={"tests": tests}))


def test_it_runs_only_if_allowed() -> None:
    with pytest.raises(ConfigError, match="runs what a model wrote on this machine; allow_execution: true allows it"):
        scorer("code")


def test_the_tests_decide() -> None:
    assert judged(GOOD) == Match(True, "passes 2 tests", {"tests_passed": 1.0})
    assert judged(f"```python\n{GOOD}\n```").equal and judged(GOOD, "assert double(1) == 2").equal
    half = judged("def double(x):\n    return x + 2")
    assert half == Match(False, "passes 1 of 2 tests: TypeError: can only concatenate str (not \"int\") to str",
                         {"tests_passed": 0.5})  # fmt: skip
    assert judged("def double(x:").reason.startswith("passes 0 of 2 tests: SyntaxError")
    with pytest.raises(DataError, match=r"no tests in its meta key 'tests' \(it has: tests\)"):
        judged(GOOD, [])


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import sys; sys.exit(0)", "SystemExit"),
        ("import os; os._exit(0)", "ended before its tests did"),
        ("print('{\"token\": \"\", \"passed\": 2, \"problem\": \"\"}')\nimport os; os._exit(0)", "ended before"),
        ("while True: pass", "took longer than 1 s"),
        ("import time; time.sleep(99)", "took longer than 1 s"),
        ("x = bytearray(2**30)", "MemoryError"),
        ("open('big', 'wb').write(bytes(2**25))", ""),
    ],
)  # fmt: skip
def test_what_a_program_does_stays_in_its_limits(program: str, problem: str) -> None:
    """Prevents: a program that ends well before its tests, and passes; one that never ends."""
    outcome = run_tests(program, ["assert True", "assert True"], 1, 512)
    assert outcome.passed == 0 and outcome.problem.startswith(problem)


def test_it_has_no_environment_and_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    look = ["import os; assert 'SECRET' not in os.environ", "import os; assert os.listdir('.') == []"]
    assert run_tests("", look, 2, 512).passed == 2


def test_two_programs_are_one_answer_only_if_they_are_the_same_text() -> None:
    code = scorer("code", allow_execution=True)
    assert isinstance(code, CodeScorer)
    assert code.same(GOOD, f"```\n{GOOD}\n```") and not code.same(GOOD, GOOD + " * 1")
    assert not code.contains(GOOD, Question(GOOD))
