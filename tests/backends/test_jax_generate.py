"""The jax backend's generation against `transformers.generate`, and against itself in other batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch

from tunix_rt.backends.interface import Backend, State
from tunix_rt.backends.jax import continuous, generate, programs
from tunix_rt.backends.jax.programs import bucket
from tunix_rt.backends.jax.sampling import Sampling, choose
from tunix_rt.backends.registry import create
from tunix_rt.backends.sampling import uniforms
from tunix_rt.batches.batch import Batch
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig

POSITIONS = 96
Answer = tuple[list[int], list[float], str]


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation() -> Iterator[None]:
    """Many small programs run once each: compiling them with few optimisations halves the time of these tests."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    hardware = HardwareConfig(platform="cpu", threads="auto")
    return create(BackendConfig(name="jax", precision="float32"), hardware, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def small_state(backend: Backend, small_llama: Path) -> State:
    return backend.load(small_llama, None)


@pytest.fixture(scope="module")
def prompts() -> list[Any]:
    """12 prompts of 1 to 13 ids, lengths in no order."""
    random = np.random.default_rng(3)
    return [random.integers(4, 53, n).astype(np.int32) for n in (5, 1, 13, 2, 9, 9, 3, 12, 7, 1, 6, 11)]


def answers(
    backend: Backend, state: State, prompts: Sequence[Any], decoding: GenerationConfig, seeds: Sequence[int]
) -> list[Answer]:
    """Pieces put together: ids, log-probabilities and finish reason of each prompt."""
    ids: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    reasons: list[str | None] = [None] * len(prompts)
    for piece in backend.generate(state, prompts, decoding, seeds):
        assert reasons[piece.index] is None, "a piece after the last one"
        assert (piece.ids.dtype, piece.logprobs.dtype) == (np.int32, np.float32)
        assert (piece.stop_id in (1, 3)) == (piece.finish_reason == "stop")
        ids[piece.index] += piece.ids.tolist()
        logprobs[piece.index] += piece.logprobs.tolist()
        reasons[piece.index] = piece.finish_reason
    return [(i, p, reason) for i, p, reason in zip(ids, logprobs, reasons, strict=True) if reason is not None]


def test_greedy_equals_transformers(
    backend: Backend, llama: Path, prompts: list[Any], decoding: Callable[..., GenerationConfig]
) -> None:
    """Prompts of mixed length together against each alone: a padding that is read would show."""
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(llama)
    found = answers(backend, backend.load(llama, None), prompts, decoding(batch_size=16), [0] * len(prompts))
    near_ties = 0
    for prompt, (ids, logprobs, reason) in zip(prompts, found, strict=True):
        tensor = torch.from_numpy(prompt).long()[None]
        out = model.generate(
            tensor,
            attention_mask=torch.ones_like(tensor),
            max_new_tokens=24,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        expected = out.sequences[0, len(prompt) :].tolist()
        scores = torch.stack(out.scores)[:, 0].log_softmax(-1)
        top_two = scores.topk(2).values
        tie = next((i for i, (a, b) in enumerate(top_two.tolist()) if a - b < 1e-4), None)
        near_ties += tie is not None
        stopped = expected[-1] in (1, 3)
        expected = expected[:-1] if stopped else expected
        if tie is None:
            assert reason == ("stop" if stopped else "length")
        assert ids[:tie] == expected[:tie]
        chosen = [scores[i, token].item() for i, token in enumerate(expected[:tie])]
        np.testing.assert_allclose(logprobs[:tie], chosen, atol=2e-4)
    assert near_ties < 3, "too many near ties: the test would prove little"
    assert len({len(ids) for ids, _, _ in found}) > 1, "all of one length: no row finished before another"


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"temperature": 1.0}])
@pytest.mark.slow
def test_a_row_does_not_depend_on_its_batch(
    backend: Backend,
    small_state: State,
    prompts: list[Any],
    decoding: Callable[..., GenerationConfig],
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Alone, in a batch, among 64, in small portions with rows leaving and a cache that grows: always the same."""
    seeds = [2**63 + 7 * i for i in range(len(prompts))]
    alone = answers(backend, small_state, prompts, decoding(batch_size=1, **changes), seeds)
    among = answers(backend, small_state, prompts * 5, decoding(batch_size=64, **changes), seeds * 5)
    monkeypatch.setattr(generate, "PORTION", 4)
    monkeypatch.setattr(continuous, "SMALL_CACHE", 8)
    monkeypatch.setattr(continuous, "RESIZE", 2)
    refitted = answers(backend, small_state, prompts, decoding(batch_size=16, **changes), seeds)
    for result in (*[among[i : i + 12] for i in range(0, 60, 12)], refitted):
        for one, other in zip(alone, result, strict=True):
            assert (one[0], one[2]) == (other[0], other[2])
            np.testing.assert_allclose(one[1], other[1], atol=2e-4)
    if changes["temperature"]:
        assert {reason for _, _, reason in alone} == {"stop", "length"}


def test_equal_prompts_are_read_once(
    backend: Backend,
    small_state: State,
    prompts: list[Any],
    decoding: Callable[..., GenerationConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Samples of few prompts in any order: each text as alone, from a prefill of few rows."""
    asked, seeds = [prompts[i] for i in (1, 0, 0, 3, 1, 0, 3, 0)], range(8)
    alone = answers(backend, small_state, asked, decoding(batch_size=1, temperature=1.0), seeds)
    read, prefill = [], programs.prefill

    def counted(*arguments: Any) -> Any:
        read.append(arguments[5].shape)
        return prefill(*arguments)

    monkeypatch.setattr(programs, "prefill", counted)
    together = answers(backend, small_state, asked, decoding(batch_size=8, temperature=1.0), seeds)
    assert read == [(4, 16)], "three prompts, in four rows"
    for one, other in zip(alone, together, strict=True):
        assert (one[0], one[2]) == (other[0], other[2])
        np.testing.assert_allclose(one[1], other[1], atol=2e-4)


def test_one_pass_scores_what_the_cache_decoded(
    backend: Backend, small_state: State, prompts: list[Any], decoding: Callable[..., GenerationConfig]
) -> None:
    """The training path and the generation path are the same model, at temperature 1, before filters."""
    sampled = answers(
        backend,
        small_state,
        prompts,
        decoding(temperature=0.7, top_k=20, top_p=0.9, batch_size=16),
        range(len(prompts)),
    )
    rows = [
        np.concatenate([prompt, ids]).astype(np.int32) for prompt, (ids, _, _) in zip(prompts, sampled, strict=True)
    ]
    shape = (len(rows), max(len(row) for row in rows) - 1)
    tokens, targets, segments = (np.zeros(shape, np.int32) for _ in range(3))
    weights = np.zeros(shape, np.float32)
    for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        end = len(row) - 1
        tokens[i, :end], targets[i, :end], segments[i, :end] = row[:-1], row[1:], 1
        weights[i, len(prompt) - 1 : end] = 1
    positions = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
    batch = Batch.supervised(tokens, targets, positions, segments, weights)
    scored = backend.fetch(backend.logprobs(small_state, batch))["logprobs"]
    for i, (_, logprobs, _) in enumerate(sampled):
        np.testing.assert_allclose(scored[i][weights[i] > 0], logprobs, atol=2e-4)


def test_generation_ends_where_the_positions_end(
    backend: Backend, small_state: State, decoding: Callable[..., GenerationConfig]
) -> None:
    random = np.random.default_rng(0)
    prompts = [random.integers(4, 53, n).astype(np.int32) for n in (POSITIONS, POSITIONS - 1, POSITIONS - 5)]
    found = answers(backend, small_state, prompts, decoding(temperature=2.0, top_k=40), [1, 2, 3])
    assert found[0] == ([], [], "length")
    assert len(found[1][0]) <= 1
    assert len(found[2][0]) <= 5
    assert any(reason == "length" for _, _, reason in found[1:])


Filters = tuple[float, int | None, float | None]
"""Temperature, top-k, top-p."""


def chosen(logits: Any, uniform: Any, filters: Sequence[Filters]) -> tuple[Any, Any]:
    """Tokens and log-probabilities; each row with its own of `filters`."""
    temperature, top_k, top_p = zip(*filters, strict=True)
    numbers = (np.array([one or 0 for one in part]) for part in (temperature, top_k, top_p))
    sampling = Sampling(*(part.astype(kind) for part, kind in zip(numbers, ("f4", "i4", "f4"), strict=True)))
    found = choose(logits, uniform, sampling, sampling.kind)
    return np.asarray(found.token), np.asarray(found.logprob)


def reference_choice(logits: Any, uniform: float, filters: Filters) -> tuple[int, float]:
    """Inversion in vocabulary order in float64, and the distance of the draw to the nearest boundary."""
    temperature, top_k, top_p = filters
    if temperature == 0:
        return int(logits.argmax()), 1.0
    scaled = logits.astype(np.float64) / temperature
    shares = np.exp(scaled - scaled.max())
    if top_k is not None:
        shares[np.argsort(-shares)[top_k:]] = 0
    shares /= shares.sum()
    if top_p is not None:
        order = np.argsort(-shares)
        size = int(np.searchsorted(np.cumsum(shares[order]), top_p)) + 1
        shares[order[size:]] = 0
        shares /= shares.sum()
    edges = np.cumsum(shares)
    return int(np.argmax(edges > uniform)), float(np.abs(edges - uniform).min())


@pytest.mark.parametrize(
    "filters",
    [
        [(1.0, None, None)],
        [(0.6, 5, None)],
        [(1.3, None, 0.8)],
        [(1.0, 9, 0.5)],
        [(1.0, None, None), (0.0, None, None), (1.3, None, 0.8), (0.6, 5, None), (1.0, 9, 0.5)],
    ],
    ids=str,
)
def test_sampling_inverts_the_filtered_distribution(filters: list[Filters]) -> None:
    """Filters, their order, renormalisation and the order of the vocabulary against a float64 reference; each row by
    itself or all alike."""
    random = np.random.default_rng(5)
    logits = (2 * random.standard_normal((300, 37))).astype(np.float32)
    uniform = random.random(300).astype(np.float32)
    asked = [filters[i % len(filters)] for i in range(300)]
    tokens, logprobs = chosen(logits, uniform, asked)
    expected = [reference_choice(*row) for row in zip(logits, uniform.tolist(), asked, strict=True)]
    clear = np.array([distance > 1e-5 for _, distance in expected])
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(tokens[clear], np.array([t for t, _ in expected])[clear])
    shifted = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    np.testing.assert_allclose(logprobs, shifted[np.arange(300), tokens], atol=1e-5)


def test_sampled_frequencies_follow_the_model() -> None:
    """With the seeds' own numbers: 4000 draws within four standard deviations of the probabilities."""
    logits = np.tile(np.array([2.0, 0.0, 1.0, -1.0, 1.5], np.float32), (4000, 1))
    tokens, _ = chosen(logits, uniforms(range(4000), 1)[:, 0], [(1.0, None, None)] * 4000)
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum()
    counts = np.bincount(tokens, minlength=5)
    assert (np.abs(counts - 4000 * shares) < 4 * np.sqrt(4000 * shares * (1 - shares))).all()


def test_a_draw_never_leaves_the_filtered_set() -> None:
    """The largest uniform number times the total may round to the total, beyond which nothing lies."""
    logits = np.array([[0.0, 3.0, 1.0, -2.0]], np.float32)
    largest = np.array([1 - 2**-24], np.float32)
    assert chosen(logits, largest, [(1.0, 2, None)])[0] == 2
    assert chosen(logits, np.zeros(1, np.float32), [(1.0, 2, None)])[0] == 1


def test_sizes_are_few_and_large_enough() -> None:
    sizes = [bucket(n) for n in range(1, 1000)]
    assert all(n <= size <= max(16, 1.5 * n) for n, size in enumerate(sizes, start=1))
    assert len(set(sizes)) < 15
