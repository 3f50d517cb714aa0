"""The verdict on a prediction, and the vote of several: one rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.evaluation.scorers import judged, scorer
from tunix_rt.config.results import EvaluationConfig
from tunix_rt.evaluation.answers import is_right, judge, vote_groups
from tunix_rt.evaluation.numbers import read_number
from tunix_rt.evaluation.scorer import Match, Question, Scorer, ScorerFailed
from tunix_rt.evaluation.statistics import majority
from tunix_rt.traces.adapters import adapt
from tunix_rt.traces.messages import Rules
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace

Predict = Callable[..., Prediction]


def why(prediction: Prediction, evaluation: EvaluationConfig) -> str:
    found, matches = judge(prediction, Question("12"), evaluation)
    assert found is None and not any(match.equal for match in matches.values())
    return matches[evaluation.decisive.kind].reason


def test_what_cannot_be_judged_says_why(rules: Callable[..., EvaluationConfig], predict: Predict) -> None:
    assert why(predict("a", "12", finish_reason="length"), rules()) == "no end token"
    assert why(predict("a", None), rules()) == "not in the format"
    assert why(predict("a", None, finish_reason="error", error="prompt too long"), rules()) == "failed: prompt too long"
    assert why(predict("a", None, completion="-"), rules(extract=("last_number",))) == "no number in the completion"
    several = rules(extract=("format", "boxed"))
    assert why(predict("a", None, completion="-"), several) == "no answer found by format, boxed"


def test_the_first_scorer_decides(rules: Callable[..., EvaluationConfig], predict: Predict) -> None:
    trace, said = Trace("a", "?", (), "12"), predict("a", "12.0")
    assert is_right(said, trace, rules("number", "exact")) and not is_right(said, trace, rules("exact", "number"))
    _, matches = judge(said, Question("12"), rules("exact", "number"))
    assert {name: match.equal for name, match in matches.items()} == {"exact": False, "number": True}


def voted(kind: str, *answers: str | None, **values: float) -> str | None:
    winner = majority(vote_groups(answers, scorer(kind, **values)))
    return None if winner is None else answers[winner]


def test_a_vote_groups_by_the_verdict_itself() -> None:
    """Prevents: `50%` that votes for `$50`, and three answers within the tolerance that do not vote together."""
    assert voted("number", "50%", "$50", "$50", "7") == "$50"
    assert voted("number", "5 m", "5 km", "5 km") == "5 km"
    assert voted("number", "7", "100.1", "99.9", "100", "7", relative_tolerance=0.01) == "100.1"
    assert voted("number", "1/2", "0.50", "3", None, None, None) == "1/2"
    assert voted("exact", "07", "7", "7 ") == "7"
    assert voted("set", "1, 2", "2 and 1", "3") == "1, 2"
    assert voted("number", None, None) is None


@pytest.mark.slow
def test_every_gsm8k_reference_equals_itself(real_data: Path) -> None:
    """100 % against themselves, alone and in a sentence, and 0 % against the next number."""
    for name in ("train", "test"):
        for line in (real_data / "gsm8k" / f"{name}.jsonl").read_text("utf-8").splitlines():
            reference = adapt(json.loads(line), "gsm8k", name, Rules()).final_answer
            value = read_number(reference)
            assert value is not None and value.value == int(reference.replace(",", ""))
            for answer in (reference, f"The answer is ${reference}.", rf"\boxed{{{reference}}}", f"**{reference}**"):
                assert judged("number", answer, reference).equal
            assert not judged("number", str(value.value + 1), reference).equal


def test_the_published_verdicts_on_gsm8k() -> None:
    """The authors judged 5,265 answers of four models; `number` disagrees with none, `exact` on separators alone."""
    lines = (ROOT / "tests/data/gsm8k/verdicts.tsv").read_text("utf-8").splitlines()
    number, exact = scorer("number"), scorer("exact")
    apart = []
    for answer, reference, flag in (line.split("\t") for line in lines):
        right = flag == "1"
        assert number.match(answer, Question(reference)).equal is right, (answer, reference)
        if exact.match(answer, Question(reference)).equal is not right:
            apart.append((answer, reference))
    assert apart and all("," in answer + reference for answer, reference in apart)


class Hasty(Scorer):
    """A person's scorer that has not thought of everything."""

    kind = "hasty"

    def match(self, answer: str, question: Question) -> Match:
        return Match(float(answer) == 1, "") if answer else None  # type: ignore[return-value]


@pytest.mark.parametrize(("answer", "why"), [("x", "ValueError: could not convert"), ("", "it returned None, not")])
def test_a_scorer_that_fails_is_named_with_the_answer(answer: str, why: str) -> None:
    """Prevents: a traceback in the middle of a training, as if the product were wrong."""
    assert Hasty().verdict("1", Question("1")).equal
    with pytest.raises(ScorerFailed, match=rf"evaluation.scorers: hasty failed on the answer '{answer}' \({why}"):
        Hasty().verdict(answer, Question("1"))
