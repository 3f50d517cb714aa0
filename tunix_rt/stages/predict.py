"""Stage `predict`: a model folder and prompts in, `predictions.jsonl` out; optionally also for the initial model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunix_rt.backends import registry
from tunix_rt.backends.interface import Backend, State
from tunix_rt.batches.reader import Reader
from tunix_rt.config.choices import Quantization
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.format import FormatConfig
from tunix_rt.config.model import LoraAdapter
from tunix_rt.config.results import GenerationConfig
from tunix_rt.errors import DataError
from tunix_rt.files import JsonObject
from tunix_rt.inference.interventions import intervene
from tunix_rt.inference.loop import predict as run_loop
from tunix_rt.inference.seen import seen_in_training
from tunix_rt.inference.trained import trained_model
from tunix_rt.models.sources import to_load
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.runs.sessions import begin_session
from tunix_rt.terminal import say, warn
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest:
    """Which prompts are answered, by which model, and where."""

    format: FormatConfig
    backend: BackendConfig
    adapter: LoraAdapter | None
    generation: GenerationConfig
    trains: bool
    """Whether the run trains its model; the model as it is has no baseline."""
    prepared: PreparedData
    run: RunFolder
    hardware: HardwareConfig
    cache: Path
    """Cache folder for compiled programs."""
    interrupt: Interrupt


def _asked(prepared: PreparedData, generation: GenerationConfig) -> list[Trace]:
    """The traces whose prompts are asked. Raises DataError if there are none."""
    traces = prepared.traces(generation.split)
    if not traces:
        raise DataError(
            f"{prepared.folder}: the {generation.split} split is empty; raise dataset.split.{generation.split}, "
            "give it a file, or choose another generation.split"
        )
    return traces


def check_asked(prepared: PreparedData, generation: GenerationConfig) -> None:
    """Before training: warn about references longer than `max_new_tokens`; DataError if there is nothing to ask."""
    _asked(prepared, generation)
    lengths, most = prepared.completion_tokens(generation.split), generation.max_new_tokens
    total, longer = sum(lengths.values()), sum(count for length, count in lengths.items() if length > most)
    if longer:
        warn(
            f"generation.max_new_tokens={most}: {longer} of {total} {generation.split} references "
            f"({100 * longer / total:.0f} %) are longer (longest {max(lengths)} tokens); an answer as long as these is "
            "cut off and cannot be right"
        )


def predict(request: PredictRequest) -> JsonObject:
    """Answer the prompts of `generation.split`; answers that are already in the file are kept. Returns facts for the
    record: which prompts the model was trained on (`seen_in_training`).

    Raises DataError, ModelError (a damaged model), DeviceError, MissingExtra, RunError (too many failed), Interrupted.
    """
    generation, prepared, run, adapter = request.generation, request.prepared, request.run, request.adapter
    traces = _asked(prepared, generation)
    engine = registry.create(request.backend, request.hardware, request.cache)
    begin_session(run, "predict", engine.describe())
    model, adapter_folder, quantize = to_load(trained_model(run), prepared.model_folder)
    seen = seen_in_training(run, prepared, generation.split)
    request.interrupt.release("before the first answer")
    if generation.baseline and not request.trains:
        say("generation.baseline=true is left out: nothing is trained, so the model as it is is its own baseline")
    elif generation.baseline:
        start = prepared.model_folder
        load = partial(engine.load, start, None, *_before_training(adapter))
        _answer(request, engine, load, start, traces, baseline=True)
    _answer(request, engine, partial(engine.load, model, None, adapter_folder, quantize), model, traces)
    return {} if seen is None else {"seen_in_training": seen}


def _answer(
    request: PredictRequest,
    engine: Backend,
    load: Callable[[], State],
    model: Path,
    traces: Sequence[Trace],
    baseline: bool = False,
) -> None:
    """Answer all prompts with one model; with the trained one also greedily and from changed steps, as declared."""
    state = load()  # held by this call only: freed before the next one is loaded
    reader, generation, run = Reader.of(model, request.format), request.generation, request.run

    def ask(path: Path, title: str, decoding: GenerationConfig = generation) -> list[Prediction]:
        return run_loop(engine, state, reader, traces, decoding, decoding.seed, path, request.interrupt, title)

    if baseline:
        ask(run.baseline_predictions, "baseline")
        return
    answers = ask(run.predictions, "predict")
    if generation.also_greedy:
        ask(run.greedy_predictions, "greedy", generation.greedy())
    if generation.interventions is not None:
        seed, place = generation.seed, run.interventions
        intervene(engine, state, reader, traces, answers, generation, seed, place, request.interrupt)


def _before_training(adapter: LoraAdapter | None) -> tuple[Path | None, Quantization | None]:
    """What lies on the base at the start of training: the adapter's folder if any, and how the base is held."""
    if adapter is None:
        return None, None
    return None if adapter.path is None else Path(adapter.path).expanduser(), adapter.quantize
