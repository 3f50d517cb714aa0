"""What every backend promises of its methods: exact continuation, what it writes, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tunix_rt.backends.interface import Backend, TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig, MeshConfig
from tunix_rt.errors import CheckpointError, DeviceError, ModelError

BatchOf = Callable[..., Batch]
Make = Callable[..., Backend]


@pytest.fixture(scope="module", params=["jax", "torch"])
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A backend on declared hardware; each backend in turn."""
    cache = tmp_path_factory.mktemp("cache")

    def build(**hardware: Any) -> Backend:
        given = {"platform": "cpu", "devices": 1, "local_batch_size": "auto", "threads": "auto"} | hardware
        chosen = HardwareConfig(mesh=MeshConfig(data=-1, shard=1, tensor=1), **given)
        return create(BackendConfig(name=request.param, precision="float32"), chosen, cache)

    return build


@pytest.fixture(scope="module")
def backend(make: Make) -> Backend:
    return make()


@pytest.fixture
def setup(adamw: Any) -> TrainingSetup:
    return TrainingSetup(adamw(), clip_norm=1.0, seed=0)


def batches(traces: Any, batch_of: BatchOf) -> list[Batch]:
    return [batch_of([[traces[i], traces[i + 1]], [traces[i + 2]]], 48) for i in range(6)]


def files(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")


def test_a_restored_run_goes_on_bit_for_bit(
    backend: Backend, llama: Path, traces: Any, batch_of: BatchOf, setup: TrainingSetup, tmp_path: Path
) -> None:
    """Three steps, save, restore, three steps = six steps; a lost count or moment would show at once."""
    folders = [tmp_path / name for name in ("half", "straight", "resumed")]
    for folder in folders:
        folder.mkdir()
    state = backend.load(llama, setup)
    for number, batch in enumerate(batches(traces, batch_of)):
        state, _ = backend.train_step(state, batch, 1e-2)
        if number == 2:
            saving = backend.save(state, folders[0])
    saving.result()
    backend.save(state, folders[1]).result()
    resumed = backend.restore(folders[0], llama, setup)
    for batch in batches(traces, batch_of)[3:]:
        resumed, _ = backend.train_step(resumed, batch, 1e-2)
    backend.save(resumed, folders[2]).result()
    half, straight, again = (files(folder) for folder in folders)
    assert (half["count"], straight["count"]) == (3, 6)
    assert half["count"].dtype == np.int64
    for name, value in straight.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_a_snapshot_is_taken_on_return(
    backend: Backend, small_llama: Path, traces: Any, batch_of: BatchOf, setup: TrainingSetup, tmp_path: Path
) -> None:
    """Steps change the weights in place: what is still being written must not follow them."""
    state = backend.load(small_llama, setup)
    futures = []
    for number, batch in enumerate(batches(traces, batch_of)):
        (tmp_path / str(number)).mkdir()
        futures.append(backend.save(state, tmp_path / str(number)))
        state, _ = backend.train_step(state, batch, 1e-2)
    for future in futures:
        future.result()
    assert [int(files(tmp_path / str(number))["count"]) for number in range(6)] == list(range(6))
    first = load_file(tmp_path / "0" / "model.safetensors")
    for name, value in load_file(small_llama / "model.safetensors").items():
        np.testing.assert_array_equal(first[name], value)


def test_two_threads_repeat_bit_for_bit(
    make: Make, llama: Path, traces: Any, batch_of: BatchOf, setup: TrainingSetup, tmp_path: Path
) -> None:
    results = []
    for run in ("one", "two"):
        threaded = make(threads=2)
        state = threaded.load(llama, setup)
        for batch in batches(traces, batch_of):
            state, measured = threaded.train_step(state, batch, 1e-2)
        (tmp_path / run).mkdir()
        threaded.save(state, tmp_path / run).result()
        results.append(files(tmp_path / run) | threaded.fetch(measured))
    for name, value in results[0].items():
        np.testing.assert_array_equal(results[1][name], value, err_msg=name)


def test_transformers_opens_what_was_saved(
    backend: Backend, llama: Path, traces: Any, batch_of: BatchOf, setup: TrainingSetup, tmp_path: Path
) -> None:
    import transformers

    state = backend.load(llama, setup)
    for batch in batches(traces, batch_of):
        state, _ = backend.train_step(state, batch, 1e-2)
    backend.save(state, tmp_path).result()
    model, report = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert model.dtype == torch.float32
    ids = torch.from_numpy(traces[3]).long()
    with torch.no_grad():
        expected = model(ids[None]).logits[0].log_softmax(-1)
    batch = batch_of([[traces[3]]], 24)
    batch.weights[batch.segments > 0] = 1
    found = backend.fetch(backend.logprobs(state, batch))["logprobs"][0, : len(ids) - 1]
    np.testing.assert_allclose(found, expected[torch.arange(len(ids) - 1), ids[1:]], rtol=1e-5, atol=1e-4)


def test_a_model_folder_that_does_not_fit_lists_both_sides(backend: Backend, small_llama: Path, tmp_path: Path) -> None:
    weights = load_file(small_llama / "model.safetensors")
    weights["model.extra.weight"] = weights.pop("model.norm.weight")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:50].copy()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((small_llama / "config.json").read_text("utf-8"), "utf-8")
    with pytest.raises(ModelError, match=r"(?s)model\.extra\.weight.*model\.norm\.weight") as raised:
        backend.load(tmp_path, None)
    for part in ("model.extra.weight", "model.norm.weight", "(50, 24)", "(53, 24)"):
        assert part in str(raised.value)


def test_a_damaged_or_foreign_optimizer_state_is_named(
    backend: Backend, llamas: dict[str, Path], setup: TrainingSetup, tmp_path: Path
) -> None:
    one, other = llamas.values()
    backend.save(backend.load(one, setup), tmp_path).result()
    path = tmp_path / "optimizer.safetensors"
    backend.save(backend.load(other, setup), tmp_path).result()
    foreign = path.read_bytes()
    backend.save(backend.load(one, setup), tmp_path).result()
    path.write_bytes(foreign)
    with pytest.raises(CheckpointError, match="does not fit") as raised:
        backend.restore(tmp_path, one, setup)
    assert "m.model.embed_tokens.weight: (61, 24) in the folder, (53, 24) in the model" in str(raised.value)
    assert "m.lm_head.weight: (61, 24) in the folder, missing in the model" in str(raised.value)
    path.write_bytes(foreign[:1000])
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: cannot be read"):
        backend.restore(tmp_path, one, setup)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: cannot be read"):
        backend.restore(tmp_path, one, setup)


def test_a_state_without_training_cannot_train(
    backend: Backend, small_llama: Path, traces: Any, batch_of: BatchOf
) -> None:
    with pytest.raises(ValueError, match="TrainingSetup"):
        backend.train_step(backend.load(small_llama, None), batch_of([[traces[0]]], 24), 1e-2)


def test_a_device_that_does_not_exist_is_refused_and_the_present_ones_listed(make: Make) -> None:
    with pytest.raises(DeviceError, match=r"hardware\.devices=\[7\].*present: .*cpu: 0"):
        make(devices=(7,))
    with pytest.raises(DeviceError, match=r"hardware\.platform=gpu hardware\.devices=\[99\].*present: "):
        make(platform="gpu", devices=(99,))
