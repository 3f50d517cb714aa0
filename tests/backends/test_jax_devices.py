"""jax on 1, 2, 4 and 8 devices of one process, and of two: one experiment, the same numbers, text and model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.team import Job, Result, Team, run, weights_in
from tunix_rt.backends.interface import AdapterSetup, TrainingSetup
from tunix_rt.backends.processes.world import World
from tunix_rt.batches.batch import Batch
from tunix_rt.config.model import LoraAdapter, ScratchModel
from tunix_rt.models.adapter_folder import Base
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.shards import finish

LLAMA = {
    "model_type": "llama",
    "hidden_size": 22,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
VOCABULARY = {"tied": 13, "untied": 14}
"""Embeddings: of 13 rows, 4 devices hold 4, 4, 4 and 1, and 8 devices 2 each and the last none; 14 are even."""
LENGTH = 12
Mesh = tuple[int, int, int]
ONE = (1, 1, 1)


def batch(seed: int, without_targets: Sequence[int] = ()) -> Batch:
    """Five rows, which no number of devices divides, each of two traces."""
    random = np.random.default_rng(seed)
    ids = random.integers(1, 13, (5, LENGTH + 1)).astype(np.int32)
    weights = random.choice([0, 0.5, 1, 2], (5, LENGTH)).astype(np.float32)
    weights[list(without_targets)] = 0
    half = np.arange(LENGTH, dtype=np.int32) // (LENGTH // 2)
    positions = np.arange(LENGTH, dtype=np.int32) - half * (LENGTH // 2)
    tokens, targets = (np.ascontiguousarray(part) for part in (ids[:, :-1], ids[:, 1:]))
    return Batch.supervised(tokens, targets, np.tile(positions, (5, 1)), np.tile(half + 1, (5, 1)), weights)


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    """One process with 8 devices; jax divides the processor when it starts."""
    found = Team(1, "jax")
    found(start, 8)
    yield found
    found.close()


@pytest.fixture
def two() -> Iterator[Team]:
    """Two processes."""
    found = Team(2, "jax")
    yield found
    found.close()


def start(world: World, devices: int) -> None:
    import jax

    jax.config.update("jax_num_cpu_devices", devices)


@pytest.fixture(scope="module")
def job_of(tmp_path_factory: pytest.TempPathFactory, adamw: Any, decoding: Any) -> Any:
    """(model, adapter) → a job: two updates, one leaves devices without a target, and seven prompts."""
    folders = {name: tmp_path_factory.mktemp(name) for name in VOCABULARY}
    for name, size in VOCABULARY.items():
        config = LLAMA | {"tie_word_embeddings": name == "tied"}
        source = ScratchModel(kind="scratch", config=config, initializer_range=0.3, scale_residual_init=False)
        write_fresh(folders[name], source, size, seed=0, pad_id=0, end_id=1)
    random = np.random.default_rng(3)
    prompts = [random.integers(2, 13, length).astype(np.int32) for length in (3, 5, 5, 7, 2, 4, 70)]
    # Where a gradient is zero but for rounding, Adam would make a whole step of it.
    setup = TrainingSetup(adamw(eps=1e-3), 0.5, 7)
    batches = (batch(0, without_targets=(0, 1, 2)), batch(1))

    def build(model: str, adapter: LoraAdapter | None = None) -> Job:
        base = folders[model]
        training = setup if adapter is None else replace(setup, adapter=AdapterSetup(adapter, Base.of(base, "0" * 64)))
        generation = decoding(batch_size=2, max_new_tokens=10)
        return Job(base, training, batches, prompts, generation, backend="jax")

    return build


def check(results: Sequence[Result], out: Path, expected: Result, folder: Path) -> None:
    """Every process sees the numbers of one device, the answers (if asked for) are complete, and the saved model is
    the same."""
    for result in results:
        np.testing.assert_allclose(result.losses, expected.losses, rtol=1e-6)
        np.testing.assert_allclose(result.norms, expected.norms, rtol=1e-5)
        np.testing.assert_allclose(result.logprobs, expected.logprobs, atol=2e-5)
    answers = [answer for result in results for answer in result.answers.items()]
    assert not answers or len(answers) == len(expected.answers)
    assert not answers or dict(answers) == expected.answers
    found, wanted = weights_in(out), weights_in(folder)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        # Moments are of gradients, in which larger numbers cancel.
        tolerance = 1e-4 if name.startswith(("m.", "v.")) else 1e-5
        assert np.linalg.norm(found[name] - value) <= tolerance * np.linalg.norm(value), name


@pytest.fixture(scope="module")
def tied(team: Team, job_of: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """The tied model on one device."""
    out = tmp_path_factory.mktemp("one")
    (found,) = team(run, job_of("tied"), ONE, out)
    assert sum(map(len, found.answers.values())) > 20, f"little text would prove nothing: {found.answers}"
    return found, out


@pytest.mark.slow
def test_every_mesh_gives_the_numbers_the_text_and_the_model_of_one_device(
    team: Team, job_of: Any, tied: tuple[Result, Path], tmp_path: Path
) -> None:
    """Rows and a vocabulary that do not divide; devices without a row, or without a target; accumulation."""
    job = job_of("tied")
    cases: dict[Mesh, Job] = {(2, 1, 1): job, (1, 4, 1): replace(job, rows_at_once=1, generation=None)}
    for mesh, changed in cases.items():
        out = tmp_path / f"{mesh}"
        check(team(run, changed, mesh, out), out, *tied)


@pytest.mark.acceptance
def test_eight_devices_that_recompute_layers_give_them_too(
    team: Team, job_of: Any, tied: tuple[Result, Path], tmp_path: Path
) -> None:
    job = replace(job_of("tied"), gradient_checkpointing=True)
    check(team(run, job, (2, 4, 1), tmp_path), tmp_path, *tied)


@pytest.mark.acceptance
def test_tensor_parallel_and_an_adapter_on_a_quantised_base(team: Team, job_of: Any, tmp_path: Path) -> None:
    """Dropout is drawn by the number of a row, wherever it is computed."""
    lora = LoraAdapter(
        kind="lora", rank=4, alpha=8.0, dropout=0.3, target="all-linear", rslora=False, path=None, quantize="nf4"
    )
    cases: dict[Mesh, Job] = {(1, 2, 2): job_of("untied"), (2, 2, 1): replace(job_of("tied", lora), rows_at_once=1)}
    for mesh, job in cases.items():
        alone, out = tmp_path / f"{mesh} alone", tmp_path / f"{mesh}"
        (expected,) = team(run, job, ONE, alone)
        check(team(run, job, mesh, out), out, expected, alone)


@pytest.mark.acceptance
def test_two_processes_share_the_work_and_each_writes_its_parts(
    team: Team, two: Team, job_of: Any, tied: tuple[Result, Path], tmp_path: Path
) -> None:
    """Training then goes on where it stopped, with the parts that the processes wrote."""
    results = two(run, job_of("tied"), (1, 4, 1), tmp_path / "two")
    finish(tmp_path / "two", [result.saved for result in results])
    assert len(results[0].placement.devices) == 4
    check(results, tmp_path / "two", *tied)
    rest = replace(job_of("tied"), batches=(batch(2),), generation=None)
    (expected,) = team(run, rest, ONE, tmp_path / "a", tied[1])
    found = two(run, rest, (1, 4, 1), tmp_path / "b", tmp_path / "two")[1]
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    np.testing.assert_allclose(found.norms, expected.norms, rtol=1e-4)


def test_a_model_that_does_not_divide_is_refused_with_the_numbers(team: Team, job_of: Any, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"hardware.mesh.tensor=2 does not divide vocab_size 13 of this model"):
        team(run, job_of("tied"), (1, 1, 2), tmp_path)
