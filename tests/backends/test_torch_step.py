"""The torch backend's numbers against plain transformers, hand-written AdamW, and against itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn.functional import cross_entropy

from tunix_rt.backends.interface import Backend, TrainingSetup
from tunix_rt.backends.optimizers.rule import Trained
from tunix_rt.backends.registry import create
from tunix_rt.backends.torch import step
from tunix_rt.backends.torch.optimizer import AdamW
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig

BatchOf = Callable[..., Batch]
BETA1 = 0.9


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    hardware = HardwareConfig(platform="cpu", threads=1)
    return create(BackendConfig(name="torch", precision="float32"), hardware, tmp_path_factory.mktemp("cache"))


def packed(traces: Any, batch_of: BatchOf) -> Batch:
    """16 traces: three per row where they fit, so rows end in padding and hold boundaries."""
    rows = [traces[i : i + 3] for i in range(0, 15, 3)] + [traces[15:]]
    batch = batch_of(rows, 64)
    assert batch.segments.max() == 3, "no boundary inside a row: the test would prove nothing"
    assert (batch.segments == 0).any(axis=-1).all(), "no padding: the test would prove nothing"
    return batch


def reference_loss(folder: Path, traces: Any, prompt: int = 2) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Loss sum, weight sum by transformers, every trace alone; weights as `batch_of` sets them in threes."""
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    loss_sum, weight_sum = torch.zeros(()), torch.zeros(())
    for index, ids in enumerate(traces):
        number = 1 if index == 15 else index % 3 + 1
        tensor = torch.from_numpy(ids).long()
        losses = cross_entropy(model(tensor[None, :-1]).logits[0], tensor[1:], reduction="none")
        weights = torch.where(torch.arange(1, len(ids)) < prompt, 0.0, 1 + 0.5 * (number % 2))
        loss_sum, weight_sum = loss_sum + (losses * weights).sum(), weight_sum + weights.sum()
    return model, loss_sum, weight_sum


def one_step(
    backend: Backend, folder: Path, batch: Batch, setup: TrainingSetup, out: Path, rate: float = 1e-2
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Measurements, weights and optimizer state after one step from `folder`."""
    state, measured = backend.train_step(backend.load(folder, setup), batch, rate)
    out.mkdir(exist_ok=True)
    backend.save(state, out).result()
    numbers = backend.fetch(measured)
    return numbers, load_file(out / "model.safetensors"), load_file(out / "optimizer.safetensors")


def gradients(optimizer: dict[str, Any]) -> dict[str, Any]:
    """The first update's gradients, from the first moments."""
    return {name[2:]: m / (1 - BETA1) for name, m in optimizer.items() if name.startswith("m.")}


def relative(a: Any, b: Any) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_loss_and_gradients_of_packed_rows_equal_transformers_trace_by_trace(
    backend: Backend, llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """Leaks across segments, shifted positions, wrong weights or rotary angles all show here."""
    model, loss_sum, weight_sum = reference_loss(llama, traces)
    (loss_sum / weight_sum).backward()
    setup = TrainingSetup(adamw(), clip_norm=None, seed=0)
    batch = packed(traces, batch_of)
    numbers, _, optimizer = one_step(backend, llama, batch, setup, tmp_path)
    assert numbers["loss_sum"] == pytest.approx(loss_sum.item(), rel=1e-6)
    assert batch.divisor == pytest.approx(weight_sum.item(), rel=1e-6)
    found = gradients(optimizer)
    for name, weight in model.named_parameters():
        assert relative(found[name], weight.grad.numpy()) < 1e-5, name


def test_logprobs_equal_transformers_and_are_zero_off_target(
    backend: Backend, llama: Path, traces: Any, batch_of: BatchOf
) -> None:
    import transformers

    batch = packed(traces, batch_of)
    found = backend.fetch(backend.logprobs(backend.load(llama, None), batch))["logprobs"]
    assert found.dtype == np.float32
    assert (found[batch.weights == 0] == 0).all()
    model = transformers.LlamaForCausalLM.from_pretrained(llama)
    for index, ids in enumerate(traces):
        row, number = index // 3, index % 3 + 1
        here = (batch.segments[row] == number) & (batch.weights[row] > 0)
        with torch.no_grad():
            logprobs = model(torch.from_numpy(ids).long()[None, :-1]).logits[0].log_softmax(-1).numpy()
        expected = logprobs[np.arange(len(ids) - 1), ids[1:]][1:]
        np.testing.assert_allclose(found[row][here], expected, rtol=1e-5, atol=1e-4)


def test_accumulation_divides_once(
    backend: Backend, small_llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """A mean of means would weigh micro-batches with few targets too much."""
    setup = TrainingSetup(adamw(), clip_norm=None, seed=0)
    results = []
    for at_once in (None, 4, 1):
        backend.rows_at_once = at_once
        results.append(one_step(backend, small_llama, batch_of([[t] for t in traces[:8]], 24), setup, tmp_path))
    backend.rows_at_once = None
    counts = [len(t) for t in traces[:8]]
    assert len(set(counts)) > 4, "equal lengths: a mean of means would pass"
    for numbers, _, optimizer in results[1:]:
        assert numbers["loss_sum"] == pytest.approx(results[0][0]["loss_sum"], rel=1e-6)
        for name, gradient in gradients(results[0][2]).items():
            assert relative(gradients(optimizer)[name], gradient) < 1e-5, name


def test_signed_weights_and_a_declared_divisor_equal_transformers(
    backend: Backend, llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """Advantages sum to about 0: what is divided by is no sum of them."""
    import transformers

    advantages = [1.0, -1.0, 0.5, -0.5, 0.0, 0.25]
    batch = batch_of([[trace] for trace in traces[:6]], 64)
    signed = (batch.segments > 0) * np.array(advantages, np.float32)[:, None]
    model, total = transformers.LlamaForCausalLM.from_pretrained(llama), torch.zeros(())
    for advantage, trace in zip(advantages, traces, strict=False):
        ids = torch.from_numpy(trace).long()
        total = total + advantage * cross_entropy(model(ids[None, :-1]).logits[0], ids[1:], reduction="sum")
    (total / 11).backward()
    setup = TrainingSetup(adamw(), clip_norm=None, seed=0)
    numbers, _, optimizer = one_step(backend, llama, replace(batch, weights=signed, divisor=11.0), setup, tmp_path)
    assert numbers["loss_sum"] == pytest.approx(total.item(), rel=1e-5)
    found = gradients(optimizer)
    for name, weight in model.named_parameters():
        assert relative(found[name], weight.grad.numpy()) < 1e-5, name


def test_packed_equals_one_by_one(
    backend: Backend, llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """Also compares the masked path with the causal one that unpacked rows take."""
    setup = TrainingSetup(adamw(), clip_norm=None, seed=0)
    together = batch_of([traces[:3], traces[3:6]], 64)
    alone = batch_of([[t] for t in traces[:6]], 24)
    weights = np.concatenate([together.weights[together.weights > 0]])
    alone.weights[alone.weights > 0] = weights
    alone = replace(alone, divisor=together.divisor)
    first, second = (one_step(backend, llama, b, setup, tmp_path) for b in (together, alone))
    assert first[0]["loss_sum"] == pytest.approx(second[0]["loss_sum"], rel=1e-6)
    for name, gradient in gradients(second[2]).items():
        assert relative(gradients(first[2])[name], gradient) < 1e-5, name


def numpy_adamw(
    weights: dict[str, Any],
    gradients: dict[str, Any],
    rate: float,
    decay: float,
    no_decay: tuple[str, ...],
    clip: float,
) -> dict[str, Any]:
    """The first AdamW update (beta1 0.9, beta2 0.99), written from the papers in float64."""
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
    out = {}
    for name, weight in weights.items():
        gradient = gradients[name].astype(np.float64) * min(1.0, clip / norm)
        first, second = 0.1 * gradient / (1 - 0.9), 0.01 * gradient**2 / (1 - 0.99)
        kind = "norms" if "norm" in name else "embeddings" if "embed" in name else "matrices"
        factor = 0 if kind in no_decay else decay
        out[name] = weight - rate * (first / (np.sqrt(second) + 1e-8) + factor * weight)
    return out


@pytest.mark.parametrize("no_decay", [(), ("norms", "biases"), ("norms", "biases", "embeddings")])
@pytest.mark.parametrize("clip", [0.05, 1e6])
def test_one_update_equals_a_hand_written_adamw(
    backend: Backend,
    llama: Path,
    traces: Any,
    batch_of: BatchOf,
    adamw: Any,
    tmp_path: Path,
    no_decay: Any,
    clip: float,
) -> None:
    """Decay in the gradient, eps inside the root, decay of a tied head or clipping after the update show here."""
    batch = packed(traces, batch_of)
    plain = TrainingSetup(adamw(), clip_norm=None, seed=0)
    measured, _, optimizer = one_step(backend, llama, batch, plain, tmp_path)
    assert 0.05 < measured["grad_norm"] < 1e6, "clipping would not be tested"
    setup = TrainingSetup(adamw(no_decay=no_decay), clip_norm=clip, seed=0)
    clipped, after, _ = one_step(backend, llama, batch, setup, tmp_path)
    assert clipped["grad_norm"] == measured["grad_norm"], "the norm is the one before clipping"
    before = load_file(llama / "model.safetensors")
    expected = numpy_adamw(before, gradients(optimizer), 1e-2, 0.1, no_decay, clip)
    for name, weight in expected.items():
        assert relative(after[name] - before[name], weight - before[name]) < 5e-4, name


def test_updates_equal_torch_optim(adamw: Any) -> None:
    """The fused kernel is called without torch.optim: the bias correction over several updates is torch's own."""
    torch.manual_seed(0)
    names = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight")
    ours = {name: torch.randn(7, 5) for name in names}
    theirs = {name: weight.clone() for name, weight in ours.items()}
    groups = [
        {"params": [theirs[name] for name in names[:2]], "weight_decay": 0.1},
        {"params": [theirs[names[2]]], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.99))
    trained = {name: Trained((7, 5), "norms" if "norm" in name else "matrices", True) for name in names}
    optimizer = AdamW(adamw(), trained, ours)
    for rate in (1e-2, 3e-2, 2e-2):
        gradients = {name: torch.randn(7, 5) for name in names}
        optimizer.update(ours, gradients, rate, scale=torch.tensor(2.0), skip=torch.tensor(0.0))
        for group in reference.param_groups:
            group["lr"] = rate
        for name in names:
            theirs[name].grad = gradients[name] / 2
        reference.step()
    for name in names:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", ["weight", "target"])
def test_a_non_finite_update_changes_nothing(
    backend: Backend, small_llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path, bad: str
) -> None:
    """Weights, both moments and the count stay bit for bit; a later good step is as if nothing had been."""
    batch = packed(traces, batch_of)
    setup = TrainingSetup(adamw(), clip_norm=1.0, seed=0)
    state, _ = backend.train_step(backend.load(small_llama, setup), batch, 1e-2)
    (tmp_path / "before").mkdir()
    backend.save(state, tmp_path / "before").result()
    weights = batch.weights.copy()
    weights[0, 3] = np.inf if bad == "weight" else np.nan
    broken = replace(batch, weights=weights)
    state, measured = backend.train_step(state, broken, 1e-2)
    assert not backend.fetch(measured)["finite"]
    (tmp_path / "after").mkdir()
    backend.save(state, tmp_path / "after").result()
    for file in ("model.safetensors", "optimizer.safetensors"):
        before, after = (load_file(tmp_path / when / file) for when in ("before", "after"))
        for name, value in before.items():
            np.testing.assert_array_equal(after[name], value, err_msg=name)
    _, measured = backend.train_step(state, batch, 1e-2)
    assert backend.fetch(measured)["finite"]


def test_chunked_logits_change_nothing(
    backend: Backend,
    llama: Path,
    traces: Any,
    batch_of: BatchOf,
    adamw: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The chunks that large vocabularies need: their backward pass computes the logits again."""
    setup = TrainingSetup(adamw(), clip_norm=None, seed=0)
    batch = packed(traces, batch_of)
    whole = one_step(backend, llama, batch, setup, tmp_path)
    monkeypatch.setattr(step, "LOGITS_AT_ONCE", 7 * 61)
    chunked = one_step(backend, llama, batch, setup, tmp_path)
    assert chunked[0]["loss_sum"] == pytest.approx(whole[0]["loss_sum"], rel=1e-6)
    for name, gradient in gradients(whole[2]).items():
        assert relative(gradients(chunked[2])[name], gradient) < 1e-5, name


def test_a_batch_without_targets_is_finite_and_only_decays(
    backend: Backend, small_llama: Path, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """After the last epoch rows are empty: 0 / 0 must not end a run."""
    setup = TrainingSetup(adamw(weight_decay=0.0), clip_norm=1.0, seed=0)
    numbers, after, _ = one_step(backend, small_llama, batch_of([[], []], 8), setup, tmp_path)
    assert numbers["finite"]
    assert numbers["loss_sum"] == 0
    for name, weight in load_file(small_llama / "model.safetensors").items():
        np.testing.assert_array_equal(after[name], weight)


def test_bfloat16_stays_near_float32(
    backend: Backend, tame_llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """Log-probabilities within 2e-2; master weights and moments stay float32."""
    hardware = HardwareConfig(platform="cpu", threads=1)
    half = create(BackendConfig(name="torch", precision="bfloat16"), hardware, tmp_path)
    batch = packed(traces, batch_of)
    exact, rounded = (b.fetch(b.logprobs(b.load(tame_llama, None), batch))["logprobs"] for b in (backend, half))
    assert 0 < np.abs(exact - rounded).max() < 2e-2
    setup = TrainingSetup(adamw(), clip_norm=1.0, seed=0)
    numbers, after, optimizer = one_step(half, tame_llama, batch, setup, tmp_path / "out")
    assert numbers["finite"]
    assert {value.dtype for n, value in (after | optimizer).items() if n != "count"} == {np.dtype(np.float32)}
    before = load_file(tame_llama / "model.safetensors")
    assert all(np.abs(after[name] - before[name]).max() > 0 for name in after)
