"""THE prediction loop: prompts are answered in batches of like length, each answer a line on disk at once.

Whatever fails becomes a line with its reason and the loop goes on. Knows text and files, no framework.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tunix_rt.backends.interface import Backend, Int32, Piece, State
from tunix_rt.batches.reader import Reader
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import RunError
from tunix_rt.files import append_line, write_jsonl
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.terminal import progress
from tunix_rt.traces.prediction import Prediction, read_predictions
from tunix_rt.traces.trace import Trace

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Question:
    trace: Trace
    sample: int
    prompt: str
    ids: Int32
    problem: str | None
    """Why it cannot be asked."""


def row_seed(seed: int, identity: str, sample: int) -> int:
    """64 bits that decide a row's draws, from the experiment's seed, the trace's id and the sample number."""
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
    """Answer every trace's prompt `num_return_sequences` times; the predictions in order of trace and sample.

    `path` gets a line per answer as it is made; what it holds already is not asked again, errors excepted.
    Raises Interrupted, and RunError when all failed or more than `max_error_rate` did.
    """
    done = {(p.id, p.sample): p for p in _recorded(path) if p.finish_reason != "error"}
    keys = [(trace.id, sample) for trace in traces for sample in range(generation.num_return_sequences)]
    done = {key: done[key] for key in keys if key in done}
    write_jsonl(path, (p.to_json() for p in done.values()))
    with progress(title, len(keys), "answers", done=len(done)) as bar:
        for batch in _batches(traces, generation, reader, done):
            interrupt.check(f"after {len(done)} of {len(keys)} answers, which are saved")
            for prediction in _answers(backend, state, reader, batch, generation, seed):
                append_line(path, prediction.to_json())
                done[prediction.id, prediction.sample] = prediction
                bar.advance()
    ordered = [done[key] for key in keys]
    write_jsonl(path, (p.to_json() for p in ordered))
    _refuse_if_failed(ordered, generation.max_error_rate)
    return ordered


def _recorded(path: Path) -> Iterator[Prediction]:
    return read_predictions(path) if path.exists() else iter(())


def _refuse_if_failed(predictions: Sequence[Prediction], max_error_rate: float) -> None:
    failed = [p for p in predictions if p.finish_reason == "error"]
    if failed and (len(failed) == len(predictions) or len(failed) > max_error_rate * len(predictions)):
        raise RunError(
            f"{len(failed)} of {len(predictions)} predictions failed "
            f"(generation.max_error_rate is {max_error_rate:g}); the first: {failed[0].id}: {failed[0].error}"
        )


def _batches(
    traces: Sequence[Trace], generation: GenerationConfig, reader: Reader, done: dict[Key, Prediction]
) -> Iterator[list[_Question]]:
    """What is still to be asked, in batches of like length."""
    asked = [
        _Question(trace, sample, *reader.encode(trace.prompt, trace.history))
        for trace in traces
        for sample in range(generation.num_return_sequences)
        if (trace.id, sample) not in done
    ]
    asked.sort(key=lambda question: (len(question.ids), question.trace.id, question.sample))
    for start in range(0, len(asked), generation.batch_size):
        yield asked[start : start + generation.batch_size]


def _answers(
    backend: Backend,
    state: State,
    reader: Reader,
    questions: Sequence[_Question],
    generation: GenerationConfig,
    seed: int,
) -> Iterator[Prediction]:
    """One prediction per question, each as soon as it is complete."""
    askable = [question for question in questions if question.problem is None]
    for question in questions:
        if question.problem is not None:
            yield failed(question.trace, question.sample, question.prompt, len(question.ids), question.problem)
    pieces: list[list[Piece]] = [[] for _ in askable]
    seeds = [row_seed(seed, question.trace.id, question.sample) for question in askable]
    try:
        for piece in backend.generate(state, [question.ids for question in askable], generation, seeds):
            pieces[piece.index].append(piece)
            if piece.finish_reason is not None:
                question = askable[piece.index]
                yield completed(
                    question.trace,
                    question.sample,
                    question.prompt,
                    len(question.ids),
                    pieces[piece.index],
                    reader,
                )
    except Exception as error:  # the contract: whatever fails is a line in the file, and the run goes on
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        for question, got in zip(askable, pieces, strict=True):
            if not got or got[-1].finish_reason is None:
                yield failed(question.trace, question.sample, question.prompt, len(question.ids), reason)


def completed(
    trace: Trace, sample: int, prompt: str, num_prompt_tokens: int, pieces: Sequence[Piece], reader: Reader
) -> Prediction:
    """The prediction that a row's pieces make."""
    ids = np.concatenate([piece.ids for piece in pieces])
    logprobs = np.concatenate([piece.logprobs for piece in pieces])
    completion = reader.tokenizer.decode(ids.tolist())
    parsed = reader.formatter.parse(completion)
    finish: Literal["stop", "length"] = pieces[-1].finish_reason or "length"
    return Prediction(
        id=trace.id,
        sample=sample,
        prompt=prompt,
        reference=trace.final_answer,
        completion=completion,
        steps=parsed.steps,
        answer=parsed.answer if finish == "stop" else None,
        finish_reason=finish,
        error=None,
        num_prompt_tokens=num_prompt_tokens,
        num_new_tokens=len(ids),
        logprobs=tuple(round(float(value), 6) for value in logprobs),
    )


def failed(trace: Trace, sample: int, prompt: str, num_prompt_tokens: int, reason: str) -> Prediction:
    """The record of a prompt that got no answer."""
    return Prediction(
        id=trace.id,
        sample=sample,
        prompt=prompt,
        reference=trace.final_answer,
        completion="",
        steps=(),
        answer=None,
        finish_reason="error",
        error=reason,
        num_prompt_tokens=num_prompt_tokens,
        num_new_tokens=0,
        logprobs=(),
    )
