"""What each scorer calls the same, case by case, and that one more scorer is one more file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.evaluation.scorers import judged, scorer
from tunix_rt.evaluation.scorer import Question

CASES = [json.loads(line) for line in (ROOT / "tests/evaluation/verdicts.jsonl").read_text("utf-8").splitlines()]
"""[scorer, whether they are the same, answer, reference]: kinds of notation, each with what must not pass for it."""


@pytest.mark.parametrize("kind", ["number", "choice", "set", "text", "math"])
def test_the_verdicts(kind: str) -> None:
    judge = scorer(kind)
    cases = [case for case in CASES if case[0] == kind]
    assert len(cases) > 20
    wrong = [case for case in cases if judge.match(case[2], Question(case[3])).equal is not case[1]]
    assert wrong == []


@pytest.mark.parametrize("kind", ["exact", "number", "choice", "set", "text", "math"])
def test_no_scorer_passes_what_another_one_knows_to_differ(kind: str) -> None:
    """Prevents: a reference of another kind than the scorer expects, judged kindly. `math` computes, so `--5` is 5."""
    judge = scorer(kind)
    passed = [case for case in CASES if not case[1] and judge.match(case[2], Question(case[3])).equal]
    assert [case for case in passed if not (kind == "math" and case[2:] == ["--5", "5"])] == []


def test_exact_compares_text() -> None:
    for answer, reference in [(" FLSTY\n", "flsty"), ("a  b", "a b"), ("ﬁn", "fin")]:
        assert judged("exact", answer, reference).equal
    for answer, reference in [("407", "0407"), ("1 + 1", "1 - 1"), ("5²", "52"), ("1,000", "1000"), ("yes.", "yes")]:
        assert not judged("exact", answer, reference).equal


def test_word_f1_is_that_of_shared_words() -> None:
    match = judged("text", "the red car", "a red car")
    assert not match.equal and match.values == {"word_f1": pytest.approx(2 / 3)}
    assert judged("text", "Paris.", "paris").values == {"word_f1": 1.0}
    assert judged("text", "", "paris").values == {"word_f1": 0.0}
    assert judged("text", "red red", "red").values == {"word_f1": pytest.approx(2 / 3)}


def test_contains_whole_numbers_and_words_only() -> None:
    number, exact = scorer("number"), scorer("exact")
    assert number.contains("the total is $1,200 in all", Question("1200"))
    assert number.contains("one half is 1/2 of it", Question("0.5"))
    assert not number.contains("the total is 11200 or 12", Question("1200"))
    assert number.contains("It is in Paris, France", Question("paris"))
    assert not number.contains("a comparison", Question("paris"))
    assert exact.contains("8*7=56;1746", Question("1746"))
    assert not exact.contains("8*7=56;17460", Question("1746")) and not exact.contains("1746.5", Question("1746"))


TOY = '''"""`toy`: the same length."""

from typing import Literal

from tunix_rt.config.section import section
from tunix_rt.evaluation.scorer import Match, Question, Scorer


@section
class ToyScorer(Scorer):
    """The same number of characters."""

    kind: Literal["toy"]
    slack: int = 0
    """How many more there may be."""

    def match(self, answer: str, question: Question) -> Match:
        return Match(0 <= len(answer) - len(question.reference) <= self.slack, "lengths", {"length": len(answer)})


SCORER = ToyScorer
'''
USE = """
import sys
import tunix_rt.evaluation.scorers
tunix_rt.evaluation.scorers.__path__.append(sys.argv[1])
from tunix_rt.config.load import check, compose
from tunix_rt.config.options import options
from tunix_rt.evaluation.score import score
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

evaluation = check(compose(["evaluation.scorers=[{kind: exact},{kind: toy,slack: 1}]"])).evaluation
predictions = [Prediction("a", 0, "?", "12", "123", (), "123", "stop", None, 1, 3, ())]
metrics = score(predictions, {"a": Trace("a", "?", (), "12")}, evaluation).metrics
assert metrics["accuracy"]["value"] == 0.0
assert metrics["scores"]["toy"]["value"] == 1.0 and metrics["scores"]["toy"]["length"] == 3.0
(option,) = [option for option in options("evaluation.scorers") if option.key.endswith(".slack")]
assert option.sentence == "How many more there may be."
"""


def test_a_scorer_is_one_file(tmp_path: Path) -> None:
    """Prevents: a table of scorers that has to be kept."""
    (tmp_path / "toy.py").write_text(TOY)
    done = subprocess.run([sys.executable, "-c", USE, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
