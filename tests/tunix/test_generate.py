"""Tunix's Sampler behind the interface: the text of our jax backend where it is greedy, the right shares where not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tunix.conftest import STOP
from tunix_rt.backends.interface import Backend, State, TrainingSetup
from tunix_rt.batches.batch import Batch
from tunix_rt.config.results import GenerationConfig

Both = dict[str, Backend]
Answer = tuple[list[int], list[float], str | None]


def answers(
    backend: Backend, state: State, prompts: Sequence[Any], generation: GenerationConfig, seeds: Sequence[int]
) -> list[Answer]:
    """(ids, log-probabilities, reason) of each prompt."""
    found: list[Answer] = [([], [], None) for _ in prompts]
    for piece in backend.generate(state, prompts, generation, seeds):
        ids, logprobs, reason = found[piece.index]
        assert reason is None, "a piece after the last one"
        assert (piece.ids.dtype, piece.logprobs.dtype) == (np.int32, np.float32)
        found[piece.index] = (ids + piece.ids.tolist(), logprobs + piece.logprobs.tolist(), piece.finish_reason)
    return found


@pytest.fixture(scope="module")
def prompts() -> list[Any]:
    """12 prompts of 1 to 13 ids, with id 0 among them, and two at the end of the model's 96 positions."""
    random = np.random.default_rng(3)
    lengths = (5, 1, 13, 2, 9, 9, 3, 12, 7, 1, 90, 96)
    return [random.permutation(96)[:n].astype(np.int32) % 53 for n in lengths]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3, one key and value head"])
def test_greedy_text_is_that_of_the_jax_backend(
    name: str, models: dict[str, Path], both: Both, prompts: list[Any], decoding: Callable[..., GenerationConfig]
) -> None:
    """Prompts of mixed length together; exceptions are choices between tokens that are equally likely."""
    found = {
        each: answers(backend, backend.load(models[name], None), prompts, decoding(), [0] * len(prompts))
        for each, backend in both.items()
    }
    differ = 0
    for one, other in zip(found["jax"], found["tunix"], strict=True):
        if one[0] != other[0]:
            differ += 1
            place = next(i for i, pair in enumerate(zip(one[0], other[0], strict=False)) if pair[0] != pair[1])
            assert abs(one[1][place] - other[1][place]) < 1e-3, "no near tie"
        else:
            assert one[2] == other[2]
            np.testing.assert_allclose(other[1], one[1], atol=5e-4)
    assert differ < 2
    if name == "llama":
        assert {reason for _, _, reason in found["tunix"]} == {"stop", "length"}, (
            "nothing stopped by itself, or all did"
        )
    assert [len(ids) for ids, _, _ in found["jax"][-2:]] == [len(ids) for ids, _, _ in found["tunix"][-2:]]
    assert all(token not in STOP for ids, _, _ in found["tunix"] for token in ids)


@pytest.mark.slow
def test_an_answer_depends_on_prompt_and_seed_only(
    llama: Path, both: Both, prompts: list[Any], decoding: Callable[..., GenerationConfig]
) -> None:
    """Greedy: alone or among others. Sampled: in another order; another seed writes something else."""
    tunix, some = both["tunix"], prompts[:6]
    state = tunix.load(llama, None)
    together = answers(tunix, state, some, decoding(), range(6))
    alone = answers(tunix, state, some, decoding(batch_size=1), range(6))
    assert [ids for ids, _, _ in together] == [ids for ids, _, _ in alone]
    sampling = decoding(temperature=1.0, batch_size=1)
    seeds = [2**64 - 1 - index for index in range(6)]
    sampled = answers(tunix, state, some, sampling, seeds)
    assert answers(tunix, state, some[::-1], sampling, seeds[::-1]) == sampled[::-1]
    others = answers(tunix, state, some, sampling, [seed - 2**40 for seed in seeds])
    assert sum(one[0] != other[0] for one, other in zip(sampled, others, strict=True)) >= 5


def test_the_weights_of_today_answer(
    llama: Path,
    both: Both,
    prompts: list[Any],
    batch_at: Callable[..., Batch],
    setup: TrainingSetup,
    decoding: Callable[..., GenerationConfig],
) -> None:
    """The Sampler, kept for its programs, must not keep the weights: as during training."""
    tunix, some = both["tunix"], prompts[:4]
    state = tunix.load(llama, setup)
    before = answers(tunix, state, some, decoding(), [0] * 4)
    for step in range(3):
        state, _ = tunix.train_step(state, batch_at(step), 3e-2)
    after = answers(tunix, state, some, decoding(), [0] * 4)
    assert before != after


@pytest.mark.slow
def test_samples_have_the_declared_shares_and_the_models_own_log_probabilities(
    llama: Path, both: Both, decoding: Callable[..., GenerationConfig]
) -> None:
    """400 first tokens against temperature, top-k and top-p of numpy, on the log-probabilities of our jax backend."""
    prompt, count = np.array([5, 9, 4], np.int32), 400
    jax, tunix = both["jax"], both["tunix"]
    logprobs = [score(jax, jax.load(llama, None), prompt, token) for token in range(53)]
    shares = np.exp(np.array(logprobs) / 1.3)
    order = np.argsort(-shares)
    shares[order[12:]] = 0
    shares /= shares.sum()
    kept = np.cumsum(shares[order]) - shares[order] <= 0.8
    shares[order[~kept]] = 0
    shares /= shares.sum()
    assert 3 <= np.count_nonzero(shares) < 12, "a filter does nothing"
    generation = decoding(temperature=1.3, top_k=12, top_p=0.8, max_new_tokens=1, batch_size=1)
    found = answers(tunix, tunix.load(llama, None), [prompt] * count, generation, range(count))
    seen = Counter(ids[0] if ids else None for ids, _, _ in found)
    stopped = seen.pop(None, 0)
    assert stopped <= count * sum(shares[list(STOP)]) * 2
    for token, times in seen.items():
        expected = count * shares[token]
        assert abs(times - expected) < 4 * np.sqrt(expected) + 1, (token, times, expected)
    for ids, given, _ in found[:50]:
        if ids:
            assert given[0] == pytest.approx(logprobs[ids[0]], abs=2e-4)


def score(backend: Backend, state: State, prompt: Any, token: int) -> float:
    """Log-probability of `token` behind `prompt`."""
    shape = (1, len(prompt))
    weights = np.zeros(shape, np.float32)
    weights[..., -1] = 1
    targets = np.append(prompt[1:], token).astype(np.int32).reshape(shape)
    positions = np.arange(len(prompt), dtype=np.int32).reshape(shape)
    batch = Batch.supervised(prompt.reshape(shape), targets, positions, np.ones(shape, np.int32), weights)
    return float(backend.fetch(backend.logprobs(state, batch))["logprobs"][0, -1])
