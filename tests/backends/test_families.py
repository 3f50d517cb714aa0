"""Every family on both backends against transformers: logits, gradients, greedy text, and what is written back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from torch.nn.functional import cross_entropy

from tests.families import CASES, as_in_files, model_of, write
from tunix_rt.backends.interface import Backend, TrainingSetup
from tunix_rt.backends.registry import create
from tunix_rt.backends.torch import decoder, step
from tunix_rt.backends.torch.attention import Packed
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.models.families.registry import tensor_shapes
from tunix_rt.models.folder import read_weights

COMMON = ("llama", "gemma3", "mixtral")
"""In the default tests; with the others a change of one family is tried."""
BETA1 = 0.9
LENGTH = 24


@pytest.fixture(scope="module", params=["jax", "torch"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    hardware = HardwareConfig(platform="cpu", threads=1)
    return create(BackendConfig(name=request.param, precision="float32"), hardware, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a case, written once."""
    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        path = root / name.replace(" ", "_")
        return path if path.is_dir() else write(path, CASES[name])

    return folder


@pytest.fixture(scope="module")
def rows(batch_of: Callable[..., Batch], traces: Any) -> Batch:
    """Two rows: two packed traces and padding, one longer than any window and padding."""
    batch = batch_of([[traces[0][:9], traces[1][:10]], [np.concatenate(traces[2:5])[:20]]], LENGTH)
    assert batch.segments.max() == 2 and (batch.segments == 0).any(axis=-1).all()
    return batch


def pieces(batch: Batch) -> Iterator[tuple[Any, Any]]:
    """Where each trace lies in [B, T], and its tokens int64 [1, N]."""
    for row, segments in enumerate(batch.segments):
        for number in range(1, segments.max() + 1):
            here = np.flatnonzero(segments == number)
            yield (row, here), torch.from_numpy(batch.tokens[row, here]).long()[None]


@partial(jax.jit, static_argnums=0)
def _in_jax(graph: Any, params: Any, *arrays: Any) -> Any:
    model = nnx.merge(graph, params)
    hidden, _ = model(*arrays)
    return model.logits(hidden)


def logits_of(backend: Backend, state: Any, batch: Batch) -> Any:
    """Logits [B, T, V] of the one pass that training and scoring make."""
    tokens, positions, segments = batch.tokens, batch.positions, batch.segments
    if hasattr(state, "graph"):
        return np.asarray(_in_jax(state.graph, state.params, tokens, positions, segments))
    with torch.no_grad():
        attend = Packed(segments, state.model.architecture, state.model.device)
        long = [torch.from_numpy(x).long() for x in (tokens, positions)]
        hidden = decoder.hidden_states(state.model, *long, attend)
        return step.capped(hidden @ state.model.head.T, state.model.architecture.logit_cap).numpy()


@pytest.mark.parametrize(
    "name", [name if name in COMMON else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_family_equals_transformers(
    name: str, backend: Backend, folders: Any, rows: Batch, adamw: Any, decoding: Any, traces: Any, tmp_path: Path
) -> None:
    """Logits of packed and padded rows, the gradient of every tensor, greedy text, and the folder written back."""
    folder, model = folders(name), model_of(CASES[name])
    setup = TrainingSetup(adamw(), clip_norm=None, seed=0)
    state = backend.load(folder, setup)
    _logits(backend, state, rows, model)
    _greedy(backend, state, model, [trace[:n] for trace, n in zip(traces, (3, 12), strict=False)], decoding)

    backend.save(state, tmp_path).result()
    before, after = read_weights(folder), read_weights(tmp_path)
    assert before.keys() == after.keys() == tensor_shapes(state.stored.architecture).keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)

    _gradients(backend, state, rows, model, tmp_path)


def _logits(backend: Backend, state: Any, rows: Batch, model: Any) -> None:
    found = logits_of(backend, state, rows)
    for (row, here), ids in pieces(rows):
        with torch.no_grad():
            expected = model(ids).logits[0].numpy()
        np.testing.assert_allclose(found[row, here], expected, rtol=1e-5, atol=1e-4)


def _gradients(backend: Backend, state: Any, rows: Batch, model: Any, folder: Path) -> None:
    from safetensors.numpy import load_file

    loss = torch.zeros(())
    for (row, here), ids in pieces(rows):
        targets, weights = (torch.from_numpy(x[row, here]) for x in (rows.targets, rows.weights))
        loss = loss + (cross_entropy(model(ids).logits[0], targets.long(), reduction="none") * weights).sum()
    (loss / rows.weights.sum()).backward()
    state, measured = backend.train_step(state, rows, 1e-3)
    assert backend.fetch(measured)["loss_sum"] == pytest.approx(loss.item(), rel=1e-5)
    backend.save(state, folder).result()
    moments = load_file(folder / "optimizer.safetensors")
    gradients = as_in_files(model, {key: weight.grad for key, weight in model.named_parameters()})
    for key, gradient in gradients.items():
        expected = gradient.numpy()
        found = moments[f"m.{key}"] / (1 - BETA1)
        assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected), key


def _greedy(backend: Backend, state: Any, model: Any, prompts: list[Any], decoding: Any) -> None:
    """Longer than the windows; a token may differ only where transformers' top two are within 1e-4."""
    generation = decoding(max_new_tokens=16)
    made: dict[int, list[int]] = {index: [] for index in range(len(prompts))}
    for piece in backend.generate(state, prompts, generation, [0] * len(prompts)):
        made[piece.index] += piece.ids.tolist()
    for index, prompt in enumerate(prompts):
        ids = torch.from_numpy(prompt).long()[None]
        with torch.no_grad():
            theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
            expected = [token for token in theirs[0, len(prompt) :].tolist() if token not in (1, 3)]
            if made[index] != expected:
                at = next(i for i, pair in enumerate(zip(made[index], expected, strict=False)) if pair[0] != pair[1])
                top = model(theirs[:, : len(prompt) + at]).logits[0, -1].topk(2).values
                assert top[0] - top[1] < 1e-4, (index, at)
