"""Memory that is short: fewer rows at once, the same update; and what is said where that does not help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import config_of
from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.backends.shrinking import shrinking
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig, MeshConfig
from tunix_rt.config.model import FreshModel
from tunix_rt.config.optimizers import AdamWConfig
from tunix_rt.errors import OutOfMemory
from tunix_rt.models.initialise import write_fresh

ROWS, LENGTH = 48, 64
ADAMW = AdamWConfig(
    kind="adamw", learning_rate=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, no_decay=("norms",)
)
SETUP = TrainingSetup(ADAMW, clip_norm=1.0, seed=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = ("hidden_size=64", "intermediate_size=512", "num_hidden_layers=2", "num_attention_heads=4")
    more = ("num_key_value_heads=4", "max_position_embeddings=72")
    source = config_of([f"model.source.{size}" for size in (*sizes, *more)]).model.source
    assert isinstance(source, FreshModel)
    write_fresh(folder := tmp_path_factory.mktemp("rows"), source, 61, 0, 0, 1)
    return folder


def make(name: str, rows: int | str, cache: Path) -> Any:
    mesh = MeshConfig(data=-1, shard=1, tensor=1)
    hardware = HardwareConfig(platform="cpu", devices=1, mesh=mesh, local_batch_size=rows, threads=1)  # type: ignore[arg-type]
    return create(BackendConfig(name=name, precision="float32"), hardware, cache)  # type: ignore[arg-type]


def batch() -> Batch:
    """Rows of one trace each, of different lengths."""
    generator = np.random.default_rng(0)
    tokens, targets = generator.integers(0, 61, (2, ROWS, LENGTH), dtype=np.int32)
    lengths = generator.integers(8, LENGTH + 1, ROWS)
    positions = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    segments = (positions < lengths[:, None]).astype(np.int32)
    return Batch.supervised(tokens, targets, positions, segments, segments.astype(np.float32))


@pytest.fixture
def short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's allocator refuses what more than 12 rows would take, in its own words.

    A real limit would depend on what this process has freed before; `test_torch_backend` sets one in a process of its
    own.
    """
    import torch

    from tunix_rt.backends.torch import step

    compute = step.hidden_states

    def limited(model: Any, tokens: Any, *arguments: Any) -> Any:
        torch.empty(1 if len(tokens) <= 12 else 1 << 50)
        return compute(model, tokens, *arguments)

    monkeypatch.setattr(step, "hidden_states", limited)


def of_two_updates(backend: Any, model: Path) -> list[Any]:
    """Log-probabilities, loss and norm of one, the loss of the next, and how many rows are computed at once then."""
    state, update = backend.load(model, SETUP), batch()
    scored = backend.fetch(backend.logprobs(state, update))["logprobs"]
    state, first = backend.train_step(state, update, 1e-3)
    state, second = backend.train_step(state, update, 1e-3)
    first, second = backend.fetch(first), backend.fetch(second)
    return [scored, first["loss_sum"], first["grad_norm"], second["loss_sum"], backend.rows_at_once]


def assert_the_same(fewer: list[Any], whole: list[Any]) -> None:
    assert whole[-1] is None
    assert 0 < fewer[-1] < ROWS
    np.testing.assert_allclose(fewer[0], whole[0], atol=1e-5)
    assert fewer[1] == pytest.approx(whole[1], rel=1e-6)
    assert fewer[2] == pytest.approx(whole[2], rel=1e-5)
    assert fewer[3] == pytest.approx(whole[3], rel=1e-6)


def test_memory_that_is_short_means_fewer_rows_at_once_and_the_same_update(
    model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = of_two_updates(make("torch", "auto", tmp_path), model)
    request.getfixturevalue("short_memory")
    fewer = of_two_updates(make("torch", "auto", tmp_path), model)
    assert_the_same(fewer, whole)
    assert fewer[-1] == 12


@pytest.mark.slow
def test_under_jax_too(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own errors, which a program raises that has run before, and one that has not: a real limit would end its
    compiler too."""
    import jax

    from tunix_rt.backends.jax import backend as module

    whole, backend = of_two_updates(make("jax", "auto", tmp_path), model), make("jax", "auto", tmp_path)

    def limited(name: str, error: type[Exception]) -> None:
        function = getattr(module, name)

        def call(*arguments: Any) -> Any:
            (inputs,) = (argument for argument in arguments if isinstance(argument, module.Inputs))
            if inputs.tokens.shape[-2] > 12:
                raise error("RESOURCE_EXHAUSTED: Out of memory allocating 67625984 bytes.")
            return function(*arguments)

        monkeypatch.setattr(module, name, call)

    limited("gradients", jax.errors.JaxRuntimeError)
    limited("score", ValueError)
    fewer = of_two_updates(backend, model)
    assert_the_same(fewer, whole)
    assert fewer[-1] == 12


@pytest.mark.usefixtures("short_memory")
def test_rows_that_were_declared_stay_and_the_number_to_lower_is_said(model: Path, tmp_path: Path) -> None:
    backend = make("torch", ROWS, tmp_path)
    state = backend.load(model, SETUP)
    with pytest.raises(OutOfMemory, match=rf"local_batch_size to {ROWS // 2} \(now {ROWS} rows"):
        backend.train_step(state, batch(), 1e-3)
    assert backend.rows_at_once == ROWS


class Rows:
    """What `shrinking` uses of a backend."""

    def __init__(self, rows: int | None, may_shrink: bool = True) -> None:
        self.rows_at_once, self.may_shrink = rows, may_shrink


def attempt(most: int, seen: list[int]) -> Any:
    """A computation for which more rows at once are too many."""

    def run(fold: Fold) -> int:
        seen.append(fold.local_rows)
        if fold.local_rows > most:
            raise OutOfMemory("full")
        return fold.micro_batches

    return run


def test_it_halves_until_it_fits_and_every_process_decides_alike() -> None:
    seen: list[int] = []
    backend = Rows(None)
    assert shrinking(backend, 50, attempt(7, seen), num_row_ranks=2) == 7
    assert (seen, backend.rows_at_once) == ([25, 9, 4], 4)
    seen.clear()
    assert shrinking(backend, 50, attempt(7, seen), num_row_ranks=2) == 7, "it stays so"
    assert seen == [4]
    answers = iter([True, False])  # another process was short of memory, this one was not
    assert shrinking(other := Rows(8), 16, attempt(8, []), any_failed=lambda _: next(answers)) == 4
    assert other.rows_at_once == 4


def test_one_row_that_is_too_much_is_an_error_everywhere() -> None:
    with pytest.raises(OutOfMemory, match="full"):
        shrinking(Rows(None), 5, attempt(0, []))
    with pytest.raises(OutOfMemory, match="another device"):
        shrinking(Rows(None), 5, attempt(5, []), any_failed=lambda _: True)
    with pytest.raises(OutOfMemory, match="full"):
        shrinking(Rows(8, may_shrink=False), 16, attempt(4, []), any_failed=lambda _: pytest.fail("asked"))
