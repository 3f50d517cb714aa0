"""The answer in a completion, and the verdict on it. No other module decides what is right.

Training-time accuracy, evaluation and the majority vote follow one rule: the verdict of the first scorer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tunix_rt.config.results import EvaluationConfig
from tunix_rt.evaluation.extract import Extracted, extract
from tunix_rt.evaluation.scorer import Match, Question, Scorer
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace


def question_of(trace: Trace) -> Question:
    """What a scorer is told of a trace."""
    return Question(trace.final_answer, trace.prompt, trace.meta)


def judge(
    prediction: Prediction, question: Question, evaluation: EvaluationConfig
) -> tuple[Extracted | None, dict[str, Match]]:
    """The extracted answer and, by its name, the verdict of each scorer that has something to compare it with."""
    found = extract(prediction, evaluation.extract, evaluation.decisive)
    missing = Match(False, _why_none(prediction, evaluation))
    scorers: list[Scorer] = [scorer for scorer in evaluation.scorers if scorer.judges(question)]
    return found, {
        scorer.kind: missing if found is None else scorer.verdict(found.text, question) for scorer in scorers
    }


def ask_ahead(predictions: Sequence[Prediction], traces: Mapping[str, Trace], evaluation: EvaluationConfig) -> None:
    """Tell each scorer what it will be asked, by `judge`, of these predictions."""
    for scorer in evaluation.scorers:
        scorer.ask_ahead(_answers(predictions, traces, evaluation, scorer))


def _answers(
    predictions: Sequence[Prediction], traces: Mapping[str, Trace], evaluation: EvaluationConfig, scorer: Scorer
) -> Iterator[tuple[str, Question]]:
    for prediction in predictions:
        question = question_of(traces[prediction.id])
        found = extract(prediction, evaluation.extract, evaluation.decisive)
        if found is not None and scorer.judges(question):
            yield found.text, question


def is_right(prediction: Prediction, trace: Trace, evaluation: EvaluationConfig) -> bool | None:
    """Whether a prediction is right under `evaluation`, by the rule of `judge`; None if there is nothing to compare."""
    scorer: Scorer = evaluation.decisive
    question = question_of(trace)
    if not scorer.judges(question):
        return None
    found = extract(prediction, evaluation.extract, scorer)
    return found is not None and scorer.verdict(found.text, question).equal


def vote_groups(answers: Sequence[str | None], scorer: Scorer) -> list[int | None]:
    """The group of each answer, named by the place of its first member; None does not vote.

    An answer joins the first group whose first member it equals by the scorer's own verdict, so that units and
    tolerance count in a vote as they do in a verdict.
    """
    heads: list[int] = []
    known: dict[str, int] = {}
    for place, answer in enumerate(answers):
        if answer is None or answer in known:
            continue
        known[answer] = next((head for head in heads if scorer.same(answer, str(answers[head]))), place)
        if known[answer] == place:
            heads.append(place)
    return [None if answer is None else known[answer] for answer in answers]


def _why_none(prediction: Prediction, evaluation: EvaluationConfig) -> str:
    """Why there is nothing to judge."""
    if prediction.finish_reason == "error":
        return f"failed: {prediction.error or 'no reason given'}"
    if evaluation.extract == ("last_number",):
        return "no number in the completion"
    if evaluation.extract == ("format",):
        return "no end token" if prediction.finish_reason == "length" else "not in the format"
    return f"no answer found by {', '.join(evaluation.extract)}"
