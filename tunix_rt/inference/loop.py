"""THE prediction loop: prompts are answered in batches of similar length, each answer is written at once as a line.

Whatever fails becomes a line with its reason and the loop goes on. Handles text and files, independent of framework.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tunix_rt.backends.interface import Backend, Int32, Piece, State
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import DataError, RunError
from tunix_rt.files import append_line, read_appended, write_jsonl
from tunix_rt.inference.batches import plan_batches, plan_file
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.terminal import progress, warn
from tunix_rt.traces.prediction import Prediction, prediction_of
from tunix_rt.traces.trace import Trace

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Question:
    trace: Trace
    sample: int
    prompt: str
    ids: Int32
    problem: str | None
    """Why it cannot be asked, if so."""

    @property
    def key(self) -> Key:
        return self.trace.id, self.sample


def row_seed(seed: int, identity: str, sample: int) -> int:
    """64-bit seed of a row's sampling, from the experiment's seed, the trace's id and the sample number."""
    text = f"{seed}\0{identity}\0{sample}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def predict(
    backend: Backend,
    state: State,
    reader: Reader,
    traces: Sequence[Trace],
    generation: GenerationConfig,
    seed: int,
    path: Path,
    interrupt: Interrupt,
    title: str = "predict",
) -> list[Prediction]:
    """Answer every trace's prompt `num_return_sequences` times; predictions are in order of trace and sample.

    `path` gets a line per answer as it is made. A batch whose answers it already holds is not asked again; one that
    was cut short, or in which something failed, is asked again completely. Raises Interrupted, and RunError when all
    or more than `max_error_rate` of them failed.
    """
    questions = [
        _Question(trace, sample, *reader.encode(trace.prompt, trace.history))
        for trace in traces
        for sample in range(generation.num_return_sequences)
    ]
    asked = sorted((q for q in questions if q.problem is None), key=lambda q: (len(q.ids), q.key))
    recorded = _recorded(path)
    plan = plan_batches(
        plan_file(path),
        len(asked),
        generation.batch_size,
        lambda batch: _is_whole(asked[batch.start : batch.stop], recorded),
    )
    groups = [(asked[batch.start : batch.stop], batch.size) for batch in plan.batches()]
    done = {q.key: _failed(q, q.problem) for q in questions if q.problem is not None}
    done |= {q.key: recorded[q.key] for group, _ in groups if _is_whole(group, recorded) for q in group}
    write_jsonl(path, (p.to_json() for p in done.values()))
    with progress(title, len(questions), "answers", done=len(done)) as bar:
        for group, size in groups:
            if _is_whole(group, done):
                continue
            interrupt.release(f"after {len(done)} of {len(questions)} answers, which are saved")
            for prediction in _answers(backend, state, reader, group, replace(generation, batch_size=size), seed):
                append_line(path, prediction.to_json())
                done[prediction.id, prediction.sample] = prediction
                bar.advance()
    ordered = [done[question.key] for question in questions]
    write_jsonl(path, (p.to_json() for p in ordered))
    _refuse_if_failed(ordered, generation.max_error_rate)
    return ordered


def _recorded(path: Path) -> dict[Key, Prediction]:
    """The answers in a file except failed ones; truncated or damaged lines are left out."""
    found: dict[Key, Prediction] = {}
    for number, line in read_appended(path):
        try:
            prediction = prediction_of(line, f"{path}:{number}")
        except DataError as error:
            warn(f"{error}; it is left out, and what it answered is asked again")
            continue
        if prediction.finish_reason != "error":
            found[prediction.id, prediction.sample] = prediction
    return found


def _is_whole(group: Sequence[_Question], answers: Mapping[Key, Prediction]) -> bool:
    return all(question.key in answers for question in group)


def _refuse_if_failed(predictions: Sequence[Prediction], max_error_rate: float) -> None:
    failed = [p for p in predictions if p.finish_reason == "error"]
    if failed and (len(failed) == len(predictions) or len(failed) > max_error_rate * len(predictions)):
        raise RunError(
            f"{len(failed)} of {len(predictions)} predictions failed "
            f"(generation.max_error_rate is {max_error_rate:g}); the first: {failed[0].id}: {failed[0].error}"
        )


def _answers(
    backend: Backend,
    state: State,
    reader: Reader,
    questions: Sequence[_Question],
    generation: GenerationConfig,
    seed: int,
) -> Iterator[Prediction]:
    """One prediction per question, each as soon as it is complete."""
    pieces: list[list[Piece]] = [[] for _ in questions]
    seeds = [row_seed(seed, *question.key) for question in questions]
    unanswered, reason = dict(enumerate(questions)), "the backend left it without an end"
    try:
        for piece in backend.generate(state, [question.ids for question in questions], generation, seeds):
            pieces[piece.index].append(piece)
            if piece.finish_reason is not None:
                yield _completed(questions[piece.index], pieces[piece.index], reader)
                del unanswered[piece.index]
    except Exception as error:  # by contract, whatever fails is a line in the file, and the run goes on
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    for question in unanswered.values():
        yield _failed(question, reason)


def _completed(question: _Question, pieces: Sequence[Piece], reader: Reader) -> Prediction:
    """The prediction from a row's pieces."""
    ids = np.concatenate([piece.ids for piece in pieces])
    logprobs = np.concatenate([piece.logprobs for piece in pieces])
    completion = reader.tokenizer.decode(ids.tolist())
    parsed = reader.formatter.parse(completion)
    finish: Literal["stop", "length"] = pieces[-1].finish_reason or "length"
    return Prediction(
        id=question.trace.id,
        sample=question.sample,
        prompt=question.prompt,
        reference=question.trace.final_answer,
        completion=completion,
        steps=parsed.steps,
        answer=parsed.answer if finish == "stop" else None,
        finish_reason=finish,
        error=None,
        num_prompt_tokens=len(question.ids),
        num_new_tokens=len(ids),
        logprobs=tuple(round(float(value), 6) for value in logprobs),
    )


def _failed(question: _Question, reason: str) -> Prediction:
    """The record of a prompt that got no answer."""
    return Prediction(
        id=question.trace.id,
        sample=question.sample,
        prompt=question.prompt,
        reference=question.trace.final_answer,
        completion="",
        steps=(),
        answer=None,
        finish_reason="error",
        error=reason,
        num_prompt_tokens=len(question.ids),
        num_new_tokens=0,
        logprobs=(),
    )
