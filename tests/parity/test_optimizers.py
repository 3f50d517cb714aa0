"""Every optimizer on both backends and on several devices: the same losses, weights and state, to go on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.backends.team import Job, Team, run
from tests.backends.test_torch_devices import LORA, MODELS, VOCABULARY, batch
from tests.conftest import config_of
from tunix_rt.backends.interface import AdapterSetup, Backend, TrainingSetup
from tunix_rt.backends.optimizers.adamw_8bit import code_values
from tunix_rt.config.model import ScratchModel
from tunix_rt.errors import CheckpointError
from tunix_rt.models.adapter_folder import Base
from tunix_rt.models.initialise import write_fresh
from tunix_rt.models.shards import finish

Both = dict[str, Backend]
KINDS = ("lion", "muon", "adafactor", "adamw_8bit")
DEFAULT = (("llama", "lion"), ("mixtral", "muon"))
"""The others are tried by hand."""
CASES = [
    pytest.param(model, kind, marks=() if (model, kind) in DEFAULT else pytest.mark.acceptance)
    for model in ("llama", "gpt2", "mixtral", "wide", "lora")
    for kind in KINDS
]
STEPS = 4


def setup_of(kind: str) -> TrainingSetup:
    """As declared; where a gradient is zero but for rounding, Adam would make a whole step of it, and Lion does."""
    optimizer = config_of([f"optimizer={kind}"]).optimizer
    if hasattr(optimizer, "eps") and kind != "adafactor":
        optimizer = replace(optimizer, eps=1e-3)
    return TrainingSetup(optimizer, 0.5, 7)


@pytest.fixture(scope="module")
def job_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Job]:
    """(model, kind of optimizer) → its folder, how it is trained, and batches."""

    def build(model: str, kind: str) -> Job:
        folder = tmp_path_factory.mktemp(model)
        config = dict(MODELS["llama" if model in ("wide", "lora") else model])
        if model == "wide":  # with tensors of more than 4,096 numbers
            config |= {"hidden_size": 96, "intermediate_size": 160}
        source = ScratchModel(kind="scratch", config=config, initializer_range=0.3, scale_residual_init=False)
        write_fresh(folder, source, VOCABULARY, seed=0, pad_id=0, end_id=1)
        setup = setup_of(kind)
        if model == "lora":
            setup = replace(setup, adapter=AdapterSetup(replace(LORA, dropout=0.0), Base.of(folder, "0" * 64)))
        return Job(folder, setup, [batch(seed) for seed in range(STEPS)])

    return build


def trained(backend: Backend, state: Any, batches: Sequence[Any], out: Path) -> list[float]:
    """Losses; what is saved is in `out`."""
    losses = []
    for one in batches:
        state, measured = backend.train_step(state, one, 1e-3)
        losses.append(float(backend.fetch(measured)["loss_sum"]) / one.divisor)
    out.mkdir()
    backend.save(state, out).result()
    return losses


def tensors_in(folder: Path) -> dict[str, Any]:
    """Weights and what the optimizer kept."""
    files = sorted(folder.glob("*.safetensors"))
    return {f"{file.stem} {name}": value for file in files for name, value in load_file(file).items()}


@pytest.mark.parametrize(("model", "kind"), CASES)
def test_both_backends_compute_the_same_and_go_on_with_it(
    model: str, kind: str, job_of: Callable[[str, str], Job], both: Both, tmp_path: Path
) -> None:
    """Losses 1e-5, tensors 5e-4; a restored state is saved as it was, and goes on bit for bit."""
    job = job_of(model, kind)
    losses = {}
    for name, backend in both.items():
        losses[name] = trained(backend, backend.load(job.folder, job.training), job.batches, tmp_path / name)
        half = trained(backend, backend.load(job.folder, job.training), job.batches[:2], tmp_path / f"{name} half")
        restored = backend.restore(tmp_path / f"{name} half", job.folder, job.training)
        assert half + trained(backend, restored, job.batches[2:], tmp_path / f"{name} on") == losses[name]
        assert files_of(tmp_path / f"{name} on") == files_of(tmp_path / name)
    np.testing.assert_allclose(losses["jax"], losses["torch"], rtol=1e-5)
    found, expected = (without_keys(tensors_in(tmp_path / name)) for name in both)
    assert {name: x.dtype for name, x in found.items()} == {name: x.dtype for name, x in expected.items()}
    for name, tensor in expected.items():
        measured_with_keys = kind == "adafactor" and name.endswith("c_attn.bias")  # it scales a tensor by all of it
        check_close(name, found[name], tensor, 5e-2 if measured_with_keys else 5e-4)
    for name, backend in both.items():
        other = next(one for one in both if one != name)
        restored = backend.restore(tmp_path / other, job.folder, job.training)
        trained(backend, restored, (), tmp_path / f"{other} by {name}")
        assert files_of(tmp_path / f"{other} by {name}") == files_of(tmp_path / other)


def without_keys(tensors: dict[str, Any]) -> dict[str, Any]:
    """The bias of GPT-2's keys, the middle third, is left out: it moves all scores of a query alike, so that its
    gradient is rounding alone, of which these optimizers make a whole step.
    """
    thirds = {name: np.split(value, 3) for name, value in tensors.items() if name.endswith("c_attn.bias")}
    return tensors | {name: np.concatenate([queries, values]) for name, (queries, _, values) in thirds.items()}


def files_of(folder: Path) -> dict[str, bytes]:
    """The tensor files, byte by byte."""
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def check_close(name: str, found: Any, expected: Any, tolerance: float) -> None:
    """Within the tolerance of the design. Of codes one in a hundred may be another, near by, and scales follow them."""
    if "_codes." in name or "_scales." in name:
        tolerance = 2e-3
    if expected.dtype == np.uint8:
        assert (found != expected).mean() < 0.01, name
        values = code_values(signed="m_codes" in name)
        found, expected = values[found], values[expected]
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected), name


def test_a_state_of_another_optimizer_is_refused(job_of: Callable[[str, str], Job], both: Both, tmp_path: Path) -> None:
    backend, job = both["torch"], job_of("llama", "lion")
    trained(backend, backend.load(job.folder, job.training), job.batches[:1], tmp_path / "lion")
    for kind in ("adamw", "muon", "adafactor"):
        with pytest.raises(
            CheckpointError, match="of another optimizer: of its tensors it keeps m of 29, where the one"
        ):
            backend.restore(tmp_path / "lion", job.folder, setup_of(kind))


@pytest.fixture(scope="module")
def teams() -> Iterator[dict[str, Team]]:
    found = {"torch": Team(2), "jax": Team(1, "jax")}
    found["jax"](on_two_devices)
    yield found
    for team in found.values():
        team.close()


def on_two_devices(world: Any) -> None:
    import jax

    jax.config.update("jax_num_cpu_devices", 2)


@pytest.mark.acceptance
@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize(("model", "kind"), [("llama", kind) for kind in KINDS] + [("wide", "adamw_8bit")])
def test_the_number_of_devices_is_no_part_of_it(
    name: str, model: str, kind: str, job_of: Any, both: Both, teams: dict[str, Team], tmp_path: Path
) -> None:
    """On one and on two, of which each has other rows, or parts of the weights: losses 1e-6, of 8 bits 1e-5, where a
    rounding can decide a code; and it goes on there.
    """
    job = replace(job_of(model, kind), backend=name)
    backend = both[name]
    losses = []
    state = backend.load(job.folder, job.training)
    for one in job.batches:
        state, measured = backend.train_step(state, one, 1e-2)
        losses.append(float(backend.fetch(measured)["loss_sum"]) / one.divisor)
    trained(backend, state, (), tmp_path / "alone")
    for mesh in ((2, 1, 1), (1, 2, 1)):
        out = tmp_path / f"{mesh}"
        results = teams[name](run, job, mesh, out)
        finish(out, [result.saved for result in results])
        np.testing.assert_allclose(results[0].losses, losses, rtol=1e-5 if kind == "adamw_8bit" else 1e-6)
        found = tensors_in(out)
        for called, tensor in tensors_in(tmp_path / "alone").items():
            check_close(called, found[called], tensor, 1e-4)
        on = tmp_path / f"{mesh} on"
        results = teams[name](run, replace(job, batches=job.batches[:1]), mesh, on, out)
        assert np.isfinite(results[0].losses).all()
