"""One answer as labelled lines for a terminal: what was asked, what was written, which steps are right, and why.

Returns text with the names of styles; prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

from tunix_rt.report.answers import Answer
from tunix_rt.styled import Line, Piece
from tunix_rt.traces.prediction import Prediction

MARKS = {True: "✓", False: "✗", None: ""}
STYLES = {True: "green", False: "red", None: ""}
NOTES = {"repeated": "repeats an earlier step", "unused": "not used later"}
"""Lists of places in `step_checks`, and what is said of a step whose place is among them."""
DOUBTS = ((0.5, "bold red"), (0.9, "yellow"))
"""Style of a token whose probability is below the number."""
LEAST = 5
"""How many of the least probable tokens are listed."""
NO_ENDS = "this run does not record where its tokens end"


def headline(answer: Answer) -> str:
    """`✗ 23*82, sample 1: other number, 24 tokens`."""
    prediction, item = answer.prediction, answer.item
    sample = f", sample {prediction.sample}" if prediction.sample else ""
    said = [item.get("reason", "not evaluated yet"), f"{prediction.num_new_tokens:,} tokens"]
    if prediction.finish_reason == "length":
        said.append("cut off")
    if item.get("confidence") is not None:
        said.append(f"confidence {100 * item['confidence']:.0f} %")
    if item.get("step_checks", {}).get("contradiction"):
        said.append("contradicts its last step")
    return f"{MARKS[answer.right]} {prediction.id}{sample}: {', '.join(said)}".strip()


def lines(answer: Answer, tokens: bool = False, asked: bool = True) -> list[Line]:
    """An answer below its headline. `tokens`: coloured by the probability of each token, instead of the verdicts on
    steps; without `asked`, prompt and reference are left out."""
    prediction, item = answer.prediction, answer.item
    found = [Line("prompt", [(prediction.prompt, "")])] if asked else []
    if prediction.finish_reason == "error":
        found.append(Line("error", [(prediction.error or "no reason given", "red")]))
    else:
        found += _completion(answer, tokens)
        text = item.get("extracted", prediction.answer)
        ambiguous = " (others are marked too)" if item.get("ambiguous") else ""
        pieces = [("none found" if text is None else text, STYLES[answer.right]), (ambiguous, "dim")]
        found.append(Line("answer", pieces, MARKS[answer.right]))
    if asked:
        found.append(Line("reference", [(prediction.reference or "none", "")]))
    if tokens:
        found.append(Line("least sure", _least(prediction)))
    return found


def _completion(answer: Answer, tokens: bool) -> list[Line]:
    """A line for each step, with its mark, and for what stands before and after them."""
    prediction, checks = answer.prediction, answer.item.get("step_checks", {})
    found: list[Line] = []
    for start, end, step in _segments(prediction):
        verdict = None if step is None else dict(enumerate(checks.get("verdicts", []))).get(step)
        plain = [(prediction.completion[start:end], STYLES[verdict])]
        pieces = list(_shaded(prediction, start, end)) if tokens and token_ends(prediction) else plain
        notes = [(f"  ({said})", "dim") for key, said in NOTES.items() if step in checks.get(key, ())]
        found.append(Line("" if found else "completion", [*pieces, *notes], MARKS[verdict]))
    return found or [Line("completion", [("(empty)", "dim")])]


def _segments(prediction: Prediction) -> Iterator[tuple[int, int, int | None]]:
    """The completion in parts (first character, last one exclusive, number of the step that it begins with, if any)."""
    text, behind = prediction.completion, 0
    starts: list[tuple[int, int | None]] = [(0, None)]
    for number, step in enumerate(prediction.steps):
        if step and (at := text.find(step, behind)) >= 0:
            starts.append((at, number))
            behind = at + len(step)
    if behind and prediction.answer and (at := text.find(prediction.answer, behind)) >= 0:
        starts.append((at, None))
    ends = [*(start for start, _ in starts[1:]), len(text)]
    for (start, step_number), end in zip(starts, ends, strict=True):
        shown = text[start:end].rstrip("\n")
        if shown.strip():
            yield start, start + len(shown), step_number


def token_ends(prediction: Prediction) -> tuple[int, ...]:
    """For each new token, how many characters of the completion stand when it is written; older runs have none."""
    return prediction.token_ends


def _shaded(prediction: Prediction, start: int, end: int) -> Iterator[Piece]:
    """Characters `start` to `end` of the completion, each token in the style of its probability."""
    begin = 0
    for stop, logprob in zip(token_ends(prediction), prediction.logprobs, strict=False):
        text = prediction.completion[max(begin, start) : min(stop, end)]
        if text:
            yield text, next((style for below, style in DOUBTS if exp(logprob) < below), "")
        begin = stop


def _least(prediction: Prediction) -> list[Piece]:
    """The least probable tokens with their probabilities."""
    ends = token_ends(prediction)
    if not ends:
        return [(NO_ENDS, "dim")]
    texts = [prediction.completion[begin:stop] for begin, stop in zip((0, *ends), ends, strict=False)]
    least = sorted(zip(prediction.logprobs, texts, strict=False))[:LEAST]
    return [(", ".join(f"{text!r} {100 * exp(logprob):.0f} %" for logprob, text in least), "")]
