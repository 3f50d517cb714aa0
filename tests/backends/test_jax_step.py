"""The jax backend's training step against plain transformers, hand-written AdamW, and against itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.nn.functional import cross_entropy

from tunix_rt.backends.fold import Fold
from tunix_rt.backends.interface import Backend, TrainingSetup
from tunix_rt.backends.jax import step
from tunix_rt.backends.registry import create
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig

BatchOf = Callable[..., Batch]
BETA1 = 0.9
PROMPT = 2
HARDWARE = HardwareConfig(platform="cpu", threads="auto")


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation() -> Iterator[None]:
    """Many small programs run once each: compiling them with few optimisations halves the time of these tests."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    return create(BackendConfig(name="jax", precision="float32"), HARDWARE, tmp_path_factory.mktemp("cache"))


def packed(traces: Any, batch_of: BatchOf) -> Batch:
    """Six traces, three in a row, rows ending in padding."""
    batch = batch_of([traces[:3], traces[3:6]], 64)
    assert batch.segments.max() == 3, "no boundary inside a row: the test would prove nothing"
    assert (batch.segments == 0).any(axis=-1).all(), "no padding: the test would prove nothing"
    return batch


def weight_of(number: int) -> float:
    """Weight that `batch_of` gives to the targets of the number-th trace of a row."""
    return 1 + 0.5 * (number % 2)


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
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(llama)
    loss_sum = weight_sum = torch.zeros(())
    for index, ids in enumerate(traces[:6]):
        tensor = torch.from_numpy(ids).long()
        losses = cross_entropy(model(tensor[None, :-1]).logits[0], tensor[1:], reduction="none")
        weights = torch.where(torch.arange(1, len(ids)) < PROMPT, 0.0, weight_of(index % 3 + 1))
        loss_sum, weight_sum = loss_sum + (losses * weights).sum(), weight_sum + weights.sum()
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
    """Two micro-batches, so that a target put back in the wrong one shows too."""
    import transformers

    batch = batch_of([traces[i : i + 3] for i in range(0, 12, 3)], 64)
    backend.rows_at_once = 2
    found = backend.fetch(backend.logprobs(backend.load(llama, None), batch))["logprobs"]
    backend.rows_at_once = None
    assert found.dtype == np.float32
    assert (found[batch.weights == 0] == 0).all()
    model = transformers.LlamaForCausalLM.from_pretrained(llama)
    for index, ids in enumerate(traces[:12]):
        where = index // 3
        here = (batch.segments[where] == index % 3 + 1) & (batch.weights[where] > 0)
        with torch.no_grad():
            logprobs = model(torch.from_numpy(ids).long()[None, :-1]).logits[0].log_softmax(-1).numpy()
        expected = logprobs[np.arange(len(ids) - 1), ids[1:]][1:]
        np.testing.assert_allclose(found[where][here], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_accumulation_divides_once(
    backend: Backend, small_llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """A mean of means would weigh micro-batches with few targets too much."""
    assert len({len(trace) for trace in traces[:8]}) > 4, "equal lengths: a mean of means would pass"
    setup = TrainingSetup(adamw(), clip_norm=None, seed=0)
    results = []
    for at_once in (None, 4, 1):
        backend.rows_at_once = at_once
        results.append(one_step(backend, small_llama, batch_of([[t] for t in traces[:8]], 24), setup, tmp_path))
    backend.rows_at_once = None
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
    setup = TrainingSetup(adamw(), clip_norm=None, seed=0)
    together = packed(traces, batch_of)
    alone = batch_of([*([trace] for trace in traces[:6]), [], []], 24)
    alone.weights[alone.weights > 0] = together.weights[together.weights > 0]
    alone = replace(alone, divisor=together.divisor)
    first, second = (one_step(backend, llama, batch, setup, tmp_path) for batch in (together, alone))
    assert first[0]["loss_sum"] == pytest.approx(second[0]["loss_sum"], rel=1e-6)
    for name, gradient in gradients(second[2]).items():
        assert relative(gradients(first[2])[name], gradient) < 1e-5, name


def numpy_adamw(
    weights: dict[str, Any], gradients: dict[str, Any], rate: float, no_decay: tuple[str, ...], clip: float
) -> dict[str, Any]:
    """The first AdamW update (beta1 0.9, beta2 0.99, decay 0.1), written from the papers in float64."""
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
    out = {}
    for name, weight in weights.items():
        gradient = gradients[name].astype(np.float64) * min(1.0, clip / norm)
        first, second = 0.1 * gradient / (1 - 0.9), 0.01 * gradient**2 / (1 - 0.99)
        kind = "norms" if "norm" in name else "embeddings" if "embed" in name else "matrices"
        decay = 0 if kind in no_decay else 0.1
        out[name] = weight - rate * (first / (np.sqrt(second) + 1e-8) + decay * weight)
    return out


@pytest.mark.parametrize(
    ("shape", "no_decay", "clip"),
    [
        ("tied, grouped", (), 0.05),
        ("tied, grouped", ("norms", "biases"), 1e6),
        ("tied, grouped", ("norms", "biases", "embeddings"), 0.05),
        ("untied, wide heads", ("norms", "biases", "embeddings"), 0.05),
    ],
)
def test_one_update_equals_a_hand_written_adamw(
    backend: Backend,
    llamas: dict[str, Path],
    traces: Any,
    batch_of: BatchOf,
    adamw: Any,
    tmp_path: Path,
    shape: str,
    no_decay: Any,
    clip: float,
) -> None:
    """Decay in the gradient, eps inside the root, decay of a tied head, clipping after the update show here."""
    llama = llamas[shape]
    batch = packed(traces, batch_of)
    plain = TrainingSetup(adamw(), clip_norm=None, seed=0)
    measured, _, optimizer = one_step(backend, llama, batch, plain, tmp_path)
    assert 0.05 < measured["grad_norm"] < 1e6, "clipping would not be tested"
    setup = TrainingSetup(adamw(no_decay=no_decay), clip_norm=clip, seed=0)
    clipped, after, _ = one_step(backend, llama, batch, setup, tmp_path)
    assert clipped["grad_norm"] == pytest.approx(measured["grad_norm"]), "the norm before clipping is meant"
    before = load_file(llama / "model.safetensors")
    expected = numpy_adamw(before, gradients(optimizer), 1e-2, no_decay, clip)
    for name, weight in expected.items():
        assert relative(after[name] - before[name], weight - before[name]) < 5e-4, name


def test_later_updates_equal_torch_optim(
    backend: Backend, small_llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """Bias correction beyond the first update, and a rate that changes from step to step."""
    import transformers

    batch, rates = batch_of([traces[:1], *[[]] * 7], 24), (1e-3, 3e-3, 2e-3)
    model = transformers.LlamaForCausalLM.from_pretrained(small_llama)
    decayed = [weight for name, weight in model.named_parameters() if "norm" not in name]
    norms = [weight for name, weight in model.named_parameters() if "norm" in name]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.99))
    state = backend.load(small_llama, TrainingSetup(adamw(), clip_norm=None, seed=0))
    ids = torch.from_numpy(traces[0]).long()
    for rate in rates:
        state, _ = backend.train_step(state, batch, rate)
        reference.zero_grad()
        cross_entropy(model(ids[None, :-1]).logits[0, 1:], ids[2:]).backward()
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
    backend.save(state, tmp_path).result()
    found, before = load_file(tmp_path / "model.safetensors"), load_file(small_llama / "model.safetensors")
    for name, weight in model.named_parameters():
        moved = weight.detach().numpy() - before[name]
        assert relative(found[name] - before[name], moved) < 5e-4, name
    assert load_file(tmp_path / "optimizer.safetensors")["count"] == len(rates)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_non_finite_update_changes_nothing(
    backend: Backend, small_llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path, bad: float
) -> None:
    """Weights, both moments and the count stay bit for bit; a later good step is as if nothing had been."""
    batch = packed(traces, batch_of)
    state = backend.load(small_llama, TrainingSetup(adamw(), clip_norm=1.0, seed=0))
    state, _ = backend.train_step(state, batch, 1e-2)
    (tmp_path / "before").mkdir()
    backend.save(state, tmp_path / "before").result()
    weights = batch.weights.copy()
    weights[0, 3] = bad
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


def test_logits_in_portions_change_nothing(
    backend: Backend,
    small_llama: Path,
    traces: Any,
    batch_of: BatchOf,
    adamw: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What large vocabularies need: few logits at a time, computed again in the backward pass."""
    setup = TrainingSetup(adamw(), clip_norm=None, seed=0)
    whole = one_step(backend, small_llama, packed(traces, batch_of), setup, tmp_path)
    monkeypatch.setattr(step, "LOGITS_AT_ONCE", 7 * 53)
    another_shape = batch_of([traces[:3], traces[3:6]], 62)  # a shape compiled before would not be portioned
    portions = one_step(backend, small_llama, another_shape, setup, tmp_path)
    assert portions[0]["loss_sum"] == pytest.approx(whole[0]["loss_sum"], rel=1e-6)
    for name, gradient in gradients(whole[2]).items():
        assert relative(gradients(portions[2])[name], gradient) < 1e-5, name


def test_few_targets_are_selected_and_all_of_them(traces: Any, batch_of: BatchOf) -> None:
    """The sizes are few (quarters), no target is lost, and what pads them weighs nothing."""
    batch = Fold.of(4, 2).local(batch_of([traces[:1], [], traces[1:4], traces[4:6]], 64))
    inputs = step.select(batch, vocab_size=53, hidden_size=24)
    assert inputs.selected.shape[1] in (32, 64, 96, 128)
    for index in range(2):
        flat = batch.weights[index].ravel()
        assert inputs.weights[index].sum() == flat.sum()
        kept = inputs.weights[index] > 0
        np.testing.assert_array_equal(inputs.selected[index][kept], np.flatnonzero(flat))
        np.testing.assert_array_equal(inputs.targets[index][kept], batch.targets[index].ravel()[flat > 0])
    assert step.select(batch, vocab_size=16, hidden_size=24).selected is None


def test_a_batch_without_targets_is_finite_and_only_decays(
    backend: Backend, small_llama: Path, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """After the last epoch rows are empty: 0 / 0 must not end a run."""
    setup = TrainingSetup(adamw(), clip_norm=1.0, seed=0)
    numbers, after, _ = one_step(backend, small_llama, batch_of([[], []], 64), setup, tmp_path)
    assert numbers["finite"]
    assert numbers["loss_sum"] == 0
    for name, weight in load_file(small_llama / "model.safetensors").items():
        kept = 1.0 if "norm" in name else 1 - 1e-2 * 0.1
        np.testing.assert_allclose(after[name], kept * weight, rtol=1e-6, err_msg=name)


def test_bfloat16_stays_near_float32(
    backend: Backend, small_llama: Path, traces: Any, batch_of: BatchOf, adamw: Any, tmp_path: Path
) -> None:
    """Log-probabilities within 2e-2 on weights of ordinary size; master weights and moments stay float32."""
    weights = load_file(small_llama / "model.safetensors")
    ordinary = {n: w if "norm" in n else (w / 3).astype(np.float32) for n, w in weights.items()}
    folder = tmp_path / "ordinary"
    folder.mkdir()
    save_file(ordinary, folder / "model.safetensors", {"format": "pt"})
    for name in ("config.json", "generation_config.json"):
        (folder / name).write_text((small_llama / name).read_text("utf-8"), "utf-8")
    half = create(BackendConfig(name="jax", precision="bfloat16"), HARDWARE, tmp_path)
    batch = packed(traces, batch_of)
    exact, rounded = (b.fetch(b.logprobs(b.load(folder, None), batch))["logprobs"] for b in (backend, half))
    assert 0 < np.abs(exact - rounded).max() < 2e-2
    setup = TrainingSetup(adamw(), clip_norm=1.0, seed=0)
    numbers, after, optimizer = one_step(half, folder, batch, setup, tmp_path / "out")
    assert numbers["finite"]
    assert {value.dtype for n, value in (after | optimizer).items() if n != "count"} == {np.dtype(np.float32)}
    assert all(np.abs(after[name] - ordinary[name]).max() > 0 for name in after)
