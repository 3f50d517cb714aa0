"""A small model that has learned nothing, prompts for it, and a judge whose rewards are known."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TOY, config_of
from tunix_rt.backends.interface import Backend, Piece, State
from tunix_rt.backends.registry import create
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.evaluation.answers import is_right
from tunix_rt.evaluation.reward import Reward
from tunix_rt.inputs import write_prepared
from tunix_rt.machine import cache_folder
from tunix_rt.rollouts.source import RolloutSource
from tunix_rt.rollouts.start import rollout_source, starting_model
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.stages.train import setup_of
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.trace import Trace

WORDS = (
    *TOY,
    "backend=torch",
    "objective=dr_grpo",
    "objective.rollout.prompts_per_step=3",
    "objective.rollout.samples_per_prompt=4",
    "objective.rollout.batch_size=5",
    "hardware.local_batch_size=4",
    "model=from_path",
    "model.source.path=base",
    "tokenizer=pretrained",
)


@dataclass
class Known:
    """Of four samples one to three are right, by the name of the prompt; none of the prompts that are `dead`."""

    dead: set[str] = field(default_factory=set)
    failed: int = 0
    asked: list[str] = field(default_factory=list)

    def rewards(self, predictions: Sequence[Prediction], traces: Mapping[str, Trace]) -> list[Reward]:
        self.asked += [prediction.id for prediction in predictions]
        assert set(self.asked[-len(predictions) :]) <= set(traces)
        totals = [float(p.id not in self.dead and p.sample < 1 + zlib.crc32(p.id.encode()) % 3) for p in predictions]
        return [Reward(total, {"answer": total}) for total in totals]


@dataclass
class Counting:
    """A backend that counts what it is asked; `fails`: called with each piece that it yields."""

    backend: Backend
    generated: list[int] = field(default_factory=list)
    scored: int = 0
    fails: Callable[[Piece], None] = lambda piece: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def generate(self, state: State, prompts: Sequence[Any], generation: Any, seeds: Sequence[int]) -> Iterator[Piece]:
        self.generated.append(len(prompts))
        for piece in self.backend.generate(state, prompts, generation, seeds):
            self.fails(piece)
            yield piece

    def logprobs(self, *arguments: Any, **named: Any) -> Any:
        self.scored += 1
        return self.backend.logprobs(*arguments, **named)


@dataclass
class Trial:
    """A training on rollouts that is done by hand."""

    config: ExperimentConfig
    prepared: PreparedData
    engine: Counting
    folder: Path
    judge: Any
    source: RolloutSource
    facts: dict[str, Any]

    def start(self) -> State:
        """The model before the first step."""
        config = self.config
        setup = setup_of(config.optimizer, config.training, config.model.adapter, self.prepared.model_folder)
        return self.engine.load(self.prepared.model_folder, setup)


Make = Callable[..., Trial]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("prepared")
    write_prepared(config_of(TOY), folder, None)
    return PreparedData(folder)


@pytest.fixture
def trial(prepared: PreparedData, tmp_path: Path) -> Make:
    """Makes one with further overrides; a second one of the same test goes on in the same folder."""

    def made(*words: str, judge: Any = None, data: PreparedData = prepared) -> Trial:
        config = config_of([*WORDS, *words])
        engine = Counting(create(config.backend, config.hardware, cache_folder()))
        judge, rules, start = judge or Known(), partial(is_right, evaluation=config.evaluation), data.model_folder
        needed = config.objective.needs_reference
        reference = starting_model(engine, start, config.model.adapter) if needed else None  # type: ignore[arg-type]
        source, facts = rollout_source(
            config.objective,
            config.training,
            data,
            config.format,
            engine,  # type: ignore[arg-type]
            judge,
            rules,
            reference,
            None,
            tmp_path / "rollouts",
            Interrupt(tmp_path / "stop"),
        )
        return Trial(config, data, engine, tmp_path / "rollouts", judge, source, facts)

    return made
