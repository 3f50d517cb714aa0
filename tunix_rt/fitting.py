"""What a model makes of a file's traces: the layout that holds them, their lengths, the rows that fit into memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tunix_rt.config.choices import PARTS, Adapter
from tunix_rt.errors import DataError, ModelError
from tunix_rt.traces.layout import OTHER_ENDS
from tunix_rt.traces.look import Found

if TYPE_CHECKING:
    from tunix_rt.config.schema import ExperimentConfig
    from tunix_rt.traces.trace import Trace


class Layout(NamedTuple):
    """A choice of the group `format`, and the text that ends a step."""

    group: str = "chat"
    step_end: str = "\n"


LAYOUTS = (Layout(), Layout("think_chat"), *(Layout("think_chat", end) for end in OTHER_ENDS))
"""Tried in this order for a source that gives parts; the first is that of `conf/experiment/_finetune.yaml`."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """What a model's tokenizer makes of a sample of the traces."""

    layout: Layout
    tokens: list[int]
    """Of each trace that can be written for the model."""
    answers: list[int]
    """Of what the model is to write, the end token included."""
    positions: int
    problems: list[str]
    """Why other traces cannot be written."""
    noted: Counter[str] = field(default_factory=Counter)
    """What the tokenizer changed in texts."""


def fit(found: Found, model: str, section: dict[str, Any]) -> Lengths:
    """Write a sample for the model, in the first layout that holds all of it, else the one that holds most.

    What the data needs is declared in `section`, that of the dataset: white space that the model's template trims, rows
    that cannot be written or are too long. Raises DataError if no trace can be written.
    """
    lengths = _best(_attempts(found, model))
    if any("dataset.strip=true" in problem for problem in lengths.problems):
        section["strip"] = True
        lengths = _best(_attempts(_stripped(found), model))
    if lengths.problems:
        section["on_invalid"] = "skip"
    if any(length > lengths.positions for length in lengths.tokens) or found.longest > lengths.positions:
        section["on_overlong"] = "drop"
    if not lengths.tokens:
        raise DataError(f"no trace can be written for model={model}: {lengths.problems[0]}")
    if min(lengths.tokens) > lengths.positions:
        shortest = f"the shortest has {min(lengths.tokens):,} tokens, of which {lengths.positions:,} fit"
        raise DataError(f"every trace is too long for model={model}: {shortest}; choose a model with more positions")
    return lengths


def _best(attempts: Iterator[Lengths]) -> Lengths:
    """The first without a problem, else the first with the fewest."""
    tried: list[Lengths] = []
    for attempt in attempts:
        tried.append(attempt)
        if not attempt.problems:
            break
    return min(tried, key=lambda attempt: len(attempt.problems))


def _attempts(found: Found, model: str) -> Iterator[Lengths]:
    for layout in LAYOUTS if found.shapes.keys() & set(PARTS) else LAYOUTS[:1]:
        yield _written(found, layout, experiment(model, found.adapter, layout))


def experiment(model: str, adapter: Adapter, layout: Layout = LAYOUTS[0]) -> ExperimentConfig:
    """A fine-tuning of the model on files of a shape. Raises ConfigError if there is no such model."""
    from tunix_rt.config.load import check, compose

    words = [*_model(model), "tokenizer=pretrained", f"format={layout.group}", "training=finetune"]
    words += ["schedule.warmup_steps=0.1", "dataset=files", "dataset.name=look", "dataset.source.train.path=-"]
    composed = compose([*words, f"dataset.source.train.adapter={adapter}"])
    composed["format"]["step_end"] = layout.step_end
    return check(composed)


def _model(model: str) -> list[str]:
    """The overrides that choose a model: a file of `conf/model`, or a model folder."""
    return ["model=from_path", f"model.source.path={json.dumps(model)}"] if Path(model).is_dir() else [f"model={model}"]


def _written(found: Found, layout: Layout, config: ExperimentConfig) -> Lengths:
    from tunix_rt.batches.encode import completion_length, encode
    from tunix_rt.batches.encoder import by_tokenizer
    from tunix_rt.inputs import start_model
    from tunix_rt.models.folder import read_architecture
    from tunix_rt.models.tokenizer import Tokenizer
    from tunix_rt.traces.format import formatter

    folder = start_model(config)
    tokenizer = Tokenizer.load(folder)
    form = formatter(config.format, tokenizer)
    lengths = Lengths(layout, [], [], read_architecture(folder).max_positions, [])
    for where, trace in found.sample:
        try:
            parts = form.parts(trace)
            encoded = encode(parts, tokenizer, config.dataset.loss_weights)
            lengths.tokens.append(len(encoded.ids))
            lengths.noted.update(by_tokenizer(encoded))
            lengths.answers.append(completion_length(parts, tokenizer))
        except (DataError, ModelError) as error:
            lengths.problems.append(f"{where}: {error}")
    return lengths


def _stripped(found: Found) -> Found:
    def bare(trace: Trace) -> Trace:
        said = trace.completion and replace(trace.completion, content=trace.completion.content.strip())
        messages = tuple(replace(message, content=message.content.strip()) for message in trace.conversation)
        return replace(trace, prompt=trace.prompt.strip(), completion=said, messages=messages, answer_span=None)

    return replace(found, sample=[(where, bare(trace)) for where, trace in found.sample])
