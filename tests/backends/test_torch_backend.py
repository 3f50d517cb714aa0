"""The torch backend from outside: exact continuation, what it writes, what it refuses, what it imports."""

from __future__ import annotations

import subprocess
import sys
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
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.errors import CheckpointError, DeviceError, ModelError

BatchOf = Callable[..., Batch]


def make(cache: Path, **hardware: Any) -> Backend:
    chosen = HardwareConfig(**({"platform": "cpu", "device": 0, "threads": 1} | hardware))
    return create(BackendConfig(name="torch", precision="float32"), chosen, cache)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return make(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def setup(adamw: Any) -> TrainingSetup:
    return TrainingSetup(adamw(), clip_norm=1.0, seed=0)


def batches(traces: Any, batch_of: BatchOf) -> list[Batch]:
    return [batch_of([[[traces[i], traces[i + 1]], [traces[i + 2]]]], 48) for i in range(6)]


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
    llama: Path, traces: Any, batch_of: BatchOf, setup: TrainingSetup, tmp_path: Path
) -> None:
    results = []
    for run in ("one", "two"):
        threaded = make(tmp_path, threads=2)
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
    batch = batch_of([[[traces[3]]]], 24)
    batch.weights[batch.segments > 0] = 1
    found = backend.fetch(backend.logprobs(state, batch))["logprobs"][0, 0, : len(ids) - 1]
    np.testing.assert_allclose(found, expected[torch.arange(len(ids) - 1), ids[1:]], rtol=1e-5, atol=1e-4)


def test_a_model_folder_that_does_not_fit_lists_both_sides(backend: Backend, small_llama: Path, tmp_path: Path) -> None:
    weights = load_file(small_llama / "model.safetensors")
    weights["model.extra.weight"] = weights.pop("model.norm.weight")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:50].copy()
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((small_llama / "config.json").read_text("utf-8"), "utf-8")
    with pytest.raises(ModelError) as raised:
        backend.load(tmp_path, None)
    for part in ("model.extra.weight", "model.norm.weight", "[50, 24]", "[53, 24]"):
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
    assert "m.model.embed_tokens.weight: (61, 24) in the file, (53, 24) in the model" in str(raised.value)
    assert "m.lm_head.weight: (61, 24) in the file, missing in the model" in str(raised.value)
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
        backend.train_step(backend.load(small_llama, None), batch_of([[[traces[0]]]], 24), 1e-2)


def test_a_device_that_does_not_exist_is_refused_and_the_present_ones_listed(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"hardware\.device=7.*present: .*cpu: 0"):
        make(tmp_path, device=7)
    with pytest.raises(DeviceError, match=r"hardware\.platform=gpu hardware\.device=99"):
        make(tmp_path, platform="gpu", device=99)


def test_placement_says_what_was_found(tmp_path: Path) -> None:
    import os

    found = make(tmp_path, platform="cpu", threads="auto").placement
    assert (found.platform, found.precision, found.num_processes) == ("cpu", "float32", 1)
    assert found.threads == os.cpu_count()
    assert make(tmp_path, platform="auto").placement.platform in ("cpu", "gpu")
    assert make(tmp_path, threads=1).describe()["torch"] == torch.__version__


TRAIN_AND_ANSWER = """
import sys
import numpy as np
from pathlib import Path
from tunix_rt.backends.interface import TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig
from tunix_rt.config.training import OptimizerConfig
from tunix_rt.errors import OutOfMemory

def batch(rows, length):
    ids = np.ones((1, rows, length), np.int32)
    return Batch(ids, ids, np.broadcast_to(np.arange(length, dtype=np.int32), ids.shape), ids, ids.astype(np.float32))

def decoding(rows):
    return GenerationConfig(
        split="test", max_new_tokens=4, temperature=0.0, top_k=None, top_p=None, num_return_sequences=1,
        batch_size=rows, baseline=False, max_error_rate=0.0,
    )

backend = create(
    BackendConfig(name="torch", precision="float32"), HardwareConfig(platform="cpu", device=0, threads=1), Path()
)
optimizer = OptimizerConfig(
    kind="adamw", learning_rate=1e-3, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1, no_decay=()
)
state = backend.load(Path(sys.argv[1]), TrainingSetup(optimizer, clip_norm=1.0, seed=0))
state, measured = backend.train_step(state, batch(2, 8), 1e-3)
assert backend.fetch(measured)["finite"]
pieces = list(backend.generate(state, [np.array([5], np.int32)], decoding(1), [0]))
assert pieces[-1].finish_reason is not None
"""


def run(code: str, folder: Path) -> None:
    """Run `code` in a fresh process with the folder as its argument; it must end well."""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_other_framework_is_imported(small_llama: Path) -> None:
    """Nor what would only cost seconds at each start: transformers, and the compiler that torch.optim imports."""
    run(
        TRAIN_AND_ANSWER + "heavy = {'jax', 'flax', 'optax', 'transformers', 'torch._dynamo'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import os; assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'\n",
        small_llama,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on address space is Linux's")
def test_full_memory_names_the_setting_to_lower(small_llama: Path) -> None:
    """A real allocation fails: the process may take 400 MB more than it has."""
    run(
        TRAIN_AND_ANSWER
        + """
import resource
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 400_000_000, resource.RLIM_INFINITY))
try:
    backend.train_step(state, batch(20_000, 96), 1e-3)
    raise AssertionError("no OutOfMemory in training")
except OutOfMemory as error:
    assert "training.per_device_batch_size" in str(error) and "20000 rows" in str(error), error
    assert "\\n" not in str(error), error
try:
    list(backend.generate(state, [np.ones(90, np.int32)] * 20_000, decoding(20_000), [0] * 20_000))
    raise AssertionError("no OutOfMemory in generation")
except OutOfMemory as error:
    assert "generation.batch_size" in str(error), error
""",
        small_llama,
    )
