"""THE prediction loop: prompts are answered in batches of similar length, each answer is written at once as a line.

Whatever fails becomes a line with its reason and the loop goes on. Handles text and files, independent of framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np

from tunix_rt.backends.interface import Backend, Piece, State
from tunix_rt.backends.sampling import row_seed
from tunix_rt.batches.encoded import Int32
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import DataError, RunError
from tunix_rt.files import JsonObject, append_line, read_appended, write_jsonl
from tunix_rt.inference.batches import plan_batches, plan_file
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.terminal import progress, warn
from tunix_rt.traces.prediction import Prediction, prediction_of
from tunix_rt.traces.trace import Trace

Key = tuple[str | int, ...]
"""Tells an answer from every other; the first part is the trace's id."""


class Answer(Protocol):
    """What the model wrote, as a record."""

    @property
    def key(self) -> Key: ...
    @property
    def finish_reason(self) -> Literal["stop", "length", "error"]: ...
    @property
    def error(self) -> str | None: ...
    def to_json(self) -> JsonObject: ...


A = TypeVar("A", bound=Answer)
A_co = TypeVar("A_co", bound=Answer, covariant=True)


class Asked(Protocol[A_co]):
    """What the model goes on from, as token ids (int32 [N]), and the record that it becomes."""

    @property
    def key(self) -> Key: ...
    @property
    def ids(self) -> Int32: ...
    @property
    def problem(self) -> str | None: ...
    def failed(self, reason: str) -> A_co: ...
    def answered(
        self, reader: Reader, ids: Int32, logprobs: Iterable[float], finish_reason: Literal["stop", "length"]
    ) -> A_co: ...


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

    The rest is said of `answer_all`.
    """
    questions = [
        reader.question(trace, sample) for trace in traces for sample in range(generation.num_return_sequences)
    ]
    return answer_all(backend, state, reader, questions, prediction_of, generation, seed, path, interrupt, title)


def answer_all(
    backend: Backend,
    state: State,
    reader: Reader,
    questions: Sequence[Asked[A]],
    read: Callable[[JsonObject, str], A],
    generation: GenerationConfig,
    seed: int,
    path: Path,
    interrupt: Interrupt,
    title: str,
) -> list[A]:
    """One answer per question, in their order.

    `path` gets a line per answer as it is made, which `read` reads again. A batch whose answers it already holds is not
    asked again; one that was cut short, or in which something failed, is asked again completely. Raises Interrupted,
    and RunError when all or more than `max_error_rate` of them failed.
    """
    asked = sorted((q for q in questions if q.problem is None), key=lambda q: (len(q.ids), q.key))
    recorded = _recorded(path, read)
    plan = plan_batches(
        plan_file(path),
        len(asked),
        generation.batch_size,
        lambda batch: _is_whole(asked[batch.start : batch.stop], recorded),
    )
    groups = [(asked[batch.start : batch.stop], batch.size) for batch in plan.batches()]
    done = {q.key: q.failed(q.problem) for q in questions if q.problem is not None}
    done |= {q.key: recorded[q.key] for group, _ in groups if _is_whole(group, recorded) for q in group}
    write_jsonl(path, (answer.to_json() for answer in done.values()))
    with progress(title, len(questions), "answers", done=len(done)) as bar:
        for group, size in groups:
            if _is_whole(group, done):
                continue
            interrupt.release(f"after {len(done)} of {len(questions)} answers, which are saved")
            for answer in _answers(backend, state, reader, group, replace(generation, batch_size=size), seed):
                append_line(path, answer.to_json())
                done[answer.key] = answer
                bar.advance()
    ordered = [done[question.key] for question in questions]
    write_jsonl(path, (answer.to_json() for answer in ordered))
    _refuse_if_failed(ordered, generation.max_error_rate)
    return ordered


def _recorded(path: Path, read: Callable[[JsonObject, str], A]) -> dict[Key, A]:
    """The answers in a file except failed ones; truncated or damaged lines are left out."""
    found: dict[Key, A] = {}
    for number, line in read_appended(path):
        try:
            answer = read(line, f"{path}:{number}")
        except DataError as error:
            warn(f"{error}; it is left out, and what it answered is asked again")
            continue
        if answer.finish_reason != "error":
            found[answer.key] = answer
    return found


def _is_whole(group: Sequence[Asked[A]], answers: Mapping[Key, A]) -> bool:
    return all(question.key in answers for question in group)


def _refuse_if_failed(answers: Sequence[Answer], max_error_rate: float) -> None:
    failed = [answer for answer in answers if answer.finish_reason == "error"]
    if failed and (len(failed) == len(answers) or len(failed) > max_error_rate * len(answers)):
        raise RunError(
            f"{len(failed)} of {len(answers)} predictions failed "
            f"(generation.max_error_rate is {max_error_rate:g}); the first: {failed[0].key[0]}: {failed[0].error}"
        )


def _answers(
    backend: Backend,
    state: State,
    reader: Reader,
    questions: Sequence[Asked[A]],
    generation: GenerationConfig,
    seed: int,
) -> Iterator[A]:
    """One answer per question, each as soon as it is complete."""
    pieces: list[list[Piece]] = [[] for _ in questions]
    seeds = [row_seed(seed, *question.key) for question in questions]
    unanswered, reason = dict(enumerate(questions)), "the backend left it without an end"
    try:
        for piece in backend.generate(state, [question.ids for question in questions], generation, seeds):
            made = pieces[piece.index]
            made.append(piece)
            if piece.finish_reason is not None:
                ids, logprobs = (np.concatenate([getattr(part, name) for part in made]) for name in ("ids", "logprobs"))
                yield questions[piece.index].answered(reader, ids, logprobs, piece.finish_reason)
                del unanswered[piece.index]
    except Exception as error:  # by contract, whatever fails is a line in the file, and the run goes on
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    for question in unanswered.values():
        yield question.failed(reason)
