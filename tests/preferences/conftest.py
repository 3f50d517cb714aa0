"""A toy of preferences: sums of two digits, a right answer against a wrong one; prepared once, and both backends."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import config_of
from tunix_rt.backends.interface import Backend, State, TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.inputs import write_prepared
from tunix_rt.machine import cache_folder
from tunix_rt.stages.train import setup_of
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.training.pairs import PairSource, pair_source

WORDS = (
    *("dataset=files", "dataset.name=sums", "dataset.source.train.path=sums.jsonl", "dataset.split.validation=0.2"),
    *("dataset.split.test=0.1", "objective=dpo", "training=smoke", "training.global_batch_size=8"),
    *("training.evaluate_samples=4", "schedule=constant"),
    *("schedule.warmup_steps=0", "optimizer.weight_decay=0.0", "model.source.hidden_size=32"),
    *("model.source.intermediate_size=64", "generation.max_new_tokens=8", "hardware=cpu", "hardware.threads=1"),
    "tracking=none",
)


def write_sums(folder: Path, number: int = 60) -> Path:
    """Pairs whose completions differ in length, one of them a list of messages."""
    chance, lines = random.Random(1), []
    for a, b in chance.sample([(a, b) for a in range(10) for b in range(10, 30)], number):
        right, wrong = f"so {a + b}", str(a + b + chance.choice((1, 10)))
        lines.append({"prompt": f"{a}+{b}=", "chosen": right, "rejected": wrong, "answer": str(a + b)})
    lines[0] |= {name: [{"role": "assistant", "content": lines[0][name]}] for name in ("chosen", "rejected")}
    file = folder / "sums.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return file


@dataclass(frozen=True)
class Toy:
    """A config and its prepared data."""

    config: ExperimentConfig
    data: PreparedData

    @property
    def setup(self) -> TrainingSetup:
        config = self.config
        return setup_of(config.optimizer, config.training, config.model.adapter, self.data.model_folder)

    def source(self, backend: Backend) -> PairSource:
        """As training makes it."""
        return pair_source(self.config.objective, self.config.training, self.data, backend, self.setup)[0]

    def steps(self, backend: Backend, number: int, rate: float) -> Iterator[tuple[State, dict[str, float]]]:
        """(state, what was measured) of the first updates; at last the state after them, and nothing."""
        source, state = self.source(backend), backend.load(self.data.model_folder, self.setup)
        for step in range(1, number + 1):
            update = source.batch(step, state)
            before, (state, measured) = state, backend.train_step(state, update.batch, rate)
            yield before, dict(update.metrics) | {"grad_norm": float(backend.fetch(measured)["grad_norm"])}
        yield state, {}


MakeToy = Callable[..., Toy]


@pytest.fixture(scope="session")
def make_toy(tmp_path_factory: pytest.TempPathFactory) -> MakeToy:
    """The toy with some words more, prepared in a folder of its own."""

    def make(*more: str) -> Toy:
        folder = tmp_path_factory.mktemp("sums")
        file = write_sums(folder)
        config = config_of([*WORDS, f"dataset.source.train.path={file}", *more])
        write_prepared(config, folder / "data", None)
        return Toy(config, PreparedData(folder / "data"))

    return make


@pytest.fixture(scope="session")
def toy(make_toy: MakeToy) -> Toy:
    return make_toy()


@pytest.fixture(scope="session")
def torch() -> Backend:
    return backend_of("torch")


def backend_of(name: str) -> Backend:
    """In float32 on one thread of the CPU."""
    config = config_of([f"backend={name}", "hardware=cpu", "hardware.threads=1"])
    return create(config.backend, config.hardware, cache_folder())


def relative(found: Sequence[float], expected: Sequence[float]) -> float:
    """The largest relative difference of two lists of numbers."""
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
