"""A state that several processes hold between them: restored by slices, saved by all of them, on any number.

The processes are simulated by backends that hold parts of a model and compute nothing.
"""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.backends.conftest import write_llama
from tests.models.divided import by_rows
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.storage import Moments, Stored, StoredBackend
from tunix_rt.config.execution import HardwareConfig, MeshConfig
from tunix_rt.models.folder import Weights
from tunix_rt.models.parts import PartOf
from tunix_rt.models.shards import finish, write_tensors
from tunix_rt.training.checkpoint import Checkpoints, Progress

CPU = HardwareConfig(
    platform="cpu", devices=1, mesh=MeshConfig(data=-1, shard=1, tensor=1), local_batch_size="auto", threads=1
)


@dataclass
class Held:
    stored: Stored
    weights: Weights
    moments: Moments


class Holder(StoredBackend):
    """One process: it holds the part `part_of` of each tensor, or (None) everything."""

    def __init__(self, part_of: PartOf | None = None, leads: bool = True) -> None:
        super().__init__(CPU, leads)
        self.part_of = part_of

    def _state(self, stored: Stored, adapter: Weights | None, training: TrainingSetup | None) -> Held:
        chosen = () if self.part_of is None else (self.part_of,)
        return Held(stored, stored.read_weights(*chosen)[0], stored.read_moments(*chosen))

    def _snapshot(self, state: Held) -> tuple[Stored, Weights, Moments | None]:
        kept = {kind: {name: x.copy() for name, x in arrays.items()} for kind, arrays in state.moments.kept.items()}
        weights = {name: x.copy() for name, x in state.weights.items()}
        return state.stored, weights, Moments(kept, state.moments.count)

    def _parts(self, state: Held) -> PartOf | None:
        return self.part_of


def job(count: int) -> list[Holder]:
    """The processes of a job."""
    return [Holder(by_rows(index, count), leads=index == 0) for index in range(count)]


@pytest.fixture(scope="module")
def training() -> TrainingSetup:
    from tunix_rt.config.optimizers import AdamWConfig

    rates = {"learning_rate": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "no_decay": ()}
    return TrainingSetup(AdamWConfig(kind="adamw", **rates), clip_norm=1.0, seed=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a vocabulary of 13 by transformers, and moments."""
    folder = write_llama(tmp_path_factory.mktemp("checkpoint"), vocab_size=13, num_key_value_heads=2)
    weights = load_file(folder / "model.safetensors")
    kept = {"m": {n: x + 1 for n, x in weights.items()}, "v": {n: x * x for n, x in weights.items()}}
    (folder / "generation_config.json").unlink()
    write_tensors(folder, "optimizer", Moments(kept, 5).tensors())
    return folder


def saved(
    processes: list[Holder], source: Path, training: TrainingSetup, target: Path, size: int = 10**9
) -> dict[str, str]:
    """Restore in every process, change nothing, and save: the hashes that the job's checkpoint gets."""
    target.mkdir()
    states = [process.restore(source, source, training) for process in processes]
    files = [process.save(state, target, size) for process, state in zip(processes, states, strict=True)]
    for state in states:  # the next step does so while files are written
        for tensors in (state.weights, *state.moments.kept.values()):
            for tensor in tensors.values():
                tensor.fill(np.nan)
    return finish(target, [one.result() for one in files])


def test_any_number_of_processes_goes_on_from_any_other(
    checkpoint: Path, training: TrainingSetup, tmp_path: Path
) -> None:
    """1 → 4 → 2 → 1: the same bytes each time, in one file and in many."""
    layouts = {}
    for size in (10**9, 3_000):
        layouts[size] = saved([Holder()], checkpoint, training, tmp_path / f"alone{size}", size)
    assert layouts[10**9].keys() == {"model.safetensors", "optimizer.safetensors", "config.json"}
    assert len([name for name in layouts[3_000] if name.startswith("optimizer-")]) > 8
    source = checkpoint
    for count, size in ((4, 3_000), (2, 10**9), (4, 10**9), (1, 3_000)):
        target = tmp_path / f"{count} {size}"
        assert saved(job(count), source, training, target, size) == layouts[size]
        assert {path.name for path in target.iterdir()} == layouts[size].keys()
        source = target
    for name in ("model.safetensors", "optimizer.safetensors"):
        found, expected = load_file(tmp_path / "2 1000000000" / name), load_file(checkpoint / name)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_whole_tensors_are_written_by_the_process_that_leads_alone(
    checkpoint: Path, training: TrainingSetup, tmp_path: Path
) -> None:
    processes = [Holder(leads=index == 0) for index in range(3)]
    states = [process.restore(checkpoint, checkpoint, training) for process in processes]
    for process, state in list(zip(processes, states, strict=True))[1:]:
        assert process.save(state, tmp_path / "nowhere").result() == {}
    assert not (tmp_path / "nowhere").exists()


def test_a_checkpoint_of_parts_is_complete_when_all_have_written(
    checkpoint: Path, training: TrainingSetup, tmp_path: Path
) -> None:
    """As the leader of a job commits it; its model is copied in as many files as it has."""
    checkpoints, processes = Checkpoints(tmp_path / "checkpoints", {}, keep=1), job(2)
    states = [process.restore(checkpoint, checkpoint, training) for process in processes]

    def write(folder: Path) -> Future[dict[str, str]]:
        done: Future[dict[str, str]] = Future()
        futures = [p.save(state, folder, 3_000) for p, state in zip(processes, states, strict=True)]
        assert checkpoints.steps() == []
        done.set_result(finish(folder, [future.result() for future in futures]))
        return done

    checkpoints.save(Progress(7, selected_step=7), write)
    checkpoints.finish()
    assert checkpoints.newest(7) == Progress(7, selected_step=7)
    shard = next(checkpoints.path(7).glob("optimizer-00002-*"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    assert checkpoints.newest(7) is None


def test_transformers_loads_the_files_and_would_have_made_the_same_ones(tmp_path: Path) -> None:
    from huggingface_hub import split_torch_state_dict_into_shards
    from transformers import AutoModelForCausalLM

    from tunix_rt.models.folder import read_config, read_weights, write_model

    folder = write_llama(tmp_path / "model", vocab_size=61, tie_word_embeddings=False, num_key_value_heads=2)
    weights, size = read_weights(folder), 12_000
    write_model(tmp_path / "ours", read_config(folder), weights, size)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    tensors: dict[str, Any] = model.state_dict()
    assert tensors.keys() == weights.keys()
    assert all(np.array_equal(tensors[name].numpy(), weights[name]) for name in weights)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=size)
    ours, theirs = (
        json.loads((tmp_path / name / "model.safetensors.index.json").read_text()) for name in ("ours", "theirs")
    )
    assert ours["metadata"] == theirs["metadata"]
    assert ours["weight_map"].keys() == theirs["weight_map"].keys()
    order = {name: tensors[name] for name in sorted(tensors, key=lambda name: ours["weight_map"][name])}
    assert split_torch_state_dict_into_shards(order, max_shard_size=size).tensor_to_filename == ours["weight_map"]
    write_model(tmp_path / "ours", read_config(folder), weights)
    assert [path.name for path in (tmp_path / "ours").glob("model*")] == ["model.safetensors"]


def test_memory_of_a_snapshot_is_that_of_its_parts(checkpoint: Path, training: TrainingSetup, tmp_path: Path) -> None:
    """Prevents: a save that gathers. Bytes of three copies (weights and two moments) over those of the model."""
    import tracemalloc

    peaks: dict[int, float] = {}
    folder = write_llama(tmp_path / "model", vocab_size=61, num_key_value_heads=2, hidden_size=192)
    weights = load_file(folder / "model.safetensors")
    moments = Moments({"m": weights, "v": weights}, 1).tensors()
    write_tensors(folder, "optimizer", moments)
    model = sum(tensor.nbytes for tensor in weights.values())
    for count in (1, 4):
        process = job(count)[-1]
        state = process.restore(folder, folder, training)
        (tmp_path / str(count)).mkdir()
        tracemalloc.start()
        process.save(state, tmp_path / str(count)).result()
        peaks[count] = tracemalloc.get_traced_memory()[1] / model
        tracemalloc.stop()
    assert 3.0 <= peaks[1] < 3.2
    assert peaks[4] < 3.2 / 4 + 0.1, peaks
