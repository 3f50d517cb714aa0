"""The jax backend's continuous batch: requests that join and leave, against `generate`, and their likeliest tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from tests.backends.answers import Answer, collected, drained
from tunix_rt.backends.interface import Backend, ContinuousBatch, Piece, Request, State
from tunix_rt.backends.jax import continuous
from tunix_rt.backends.registry import create
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig

Decoding = Callable[..., GenerationConfig]


@pytest.fixture(scope="module", autouse=True)
def _quick_compilation() -> Iterator[None]:
    """Many small programs run a few times each."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    hardware = HardwareConfig(platform="cpu", threads="auto")
    return create(BackendConfig(name="jax", precision="float32"), hardware, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def state(backend: Backend, small_llama: Path) -> State:
    return backend.load(small_llama, None)


@pytest.fixture(scope="module")
def requests(decoding: Decoding) -> list[Request]:
    """Of several lengths, with three kinds of settings."""
    random = np.random.default_rng(11)
    settings = [{"temperature": 0.0}, {"temperature": 1.0}, {"temperature": 1.2, "top_k": 30, "top_p": 0.9}]
    return [
        Request(100 + i, random.integers(4, 53, n).astype(np.int32), decoding(**settings[i % 3]), 2**63 + i)
        for i, n in enumerate((5, 14, 1, 9, 3, 12, 7, 2, 11, 16, 6, 10, 4, 8, 13))
    ]


def by_generate(backend: Backend, state: State, requests: list[Request]) -> dict[int, Answer]:
    """Those with the same settings together."""
    found: dict[int, Answer] = {}
    for settings in {request.generation: None for request in requests}:
        own = [request for request in requests if request.generation == settings]
        asked = [request.prompt for request in own], settings, [request.seed for request in own]
        answers = collected(backend.generate(state, *asked))
        found |= {request.index: answers[i] for i, request in enumerate(own)}
    return found


def same(found: dict[int, Answer], expected: dict[int, Answer]) -> None:
    assert found.keys() == expected.keys()
    for index, (ids, logprobs, reason) in expected.items():
        assert (found[index][0], found[index][2]) == (ids, reason)
        np.testing.assert_allclose(found[index][1], logprobs, atol=2e-4)


@pytest.fixture(scope="module")
def drawn(requests: list[Request]) -> list[Request]:
    """Those of one setting."""
    return requests[1::3]


@pytest.fixture(scope="module")
def expected(backend: Backend, state: State, drawn: list[Request]) -> dict[int, Answer]:
    return by_generate(backend, state, drawn)


def test_who_joins_late_is_answered_as_together(
    backend: Backend, state: State, drawn: list[Request], expected: dict[int, Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows at any position, around a ring whose first slots are written again, and that grows."""
    monkeypatch.setattr(continuous, "SMALL_CACHE", 8)
    same(joined_late(backend.continuous(state, 2), drawn), expected)
    assert {reason for _, _, reason in expected.values()} == {"stop", "length"}


@pytest.mark.acceptance
def test_who_joins_late_may_ask_for_anything(
    backend: Backend, state: State, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy, drawn and filtered rows together; what has been said is the same."""
    monkeypatch.setattr(continuous, "SMALL_CACHE", 8)
    found = by_generate(backend, state, requests)
    same(joined_late(backend.continuous(state, 4), requests), found)
    assert len({len(ids) for ids, _, _ in found.values()}) > 4


def joined_late(batch: ContinuousBatch, requests: list[Request]) -> dict[int, Answer]:
    """Each request is added once a row is free after some steps."""
    rows, waiting, pieces = batch.free, list(requests), list[Piece]()
    assert batch.step() == []
    for step in range(1000):
        while waiting and batch.free and step % 2 == 0:
            batch.add(waiting.pop(0))
        made = batch.step()
        pieces += made
        if not waiting and not made:
            break
    assert batch.free == rows
    return collected(pieces)


@pytest.mark.acceptance
def test_a_call_of_more_prompts_than_rows_fills_rows_again(
    backend: Backend, state: State, drawn: list[Request], expected: dict[int, Answer]
) -> None:
    """`generate` in 2 rows: those whose rows end make room for the next, and none of them shows."""
    few = [replace(request, generation=replace(request.generation, batch_size=2)) for request in drawn]
    same(by_generate(backend, state, few), expected)


def test_a_full_batch_refuses_and_an_aborted_row_is_free(
    backend: Backend, state: State, drawn: list[Request], expected: dict[int, Answer]
) -> None:
    longest_first = sorted(drawn, key=lambda request: -len(expected[request.index][0]))
    first, second, third = longest_first[:3]
    assert len(expected[second.index][0]) > 1 + continuous.WATCHED, "nobody is aborted"
    batch = backend.continuous(state, 2)
    batch.add(first)
    batch.add(second)
    with pytest.raises(ValueError, match="all 2 rows"):
        batch.add(third)
    batch.abort(second.index)
    batch.abort(12345)
    assert batch.free == 1
    pieces = batch.step()
    assert {piece.index for piece in pieces} == {first.index}
    batch.add(second)
    pieces += batch.step()
    batch.abort(first.index)
    batch.add(third)
    pieces = [piece for piece in pieces if piece.index != first.index] + drained(batch)
    same(collected(pieces), {request.index: expected[request.index] for request in (second, third)})


@pytest.mark.acceptance
def test_the_likeliest_tokens_are_named_with_their_logprobs(
    backend: Backend, state: State, decoding: Decoding, small_llama: Path
) -> None:
    """Of each new token, in the order of transformers' log-probabilities."""
    import transformers

    prompt = np.arange(4, 17, dtype=np.int32)
    batch = backend.continuous(state, 2)
    batch.add(Request(0, prompt, decoding(temperature=1.0, max_new_tokens=6), 8, top_logprobs=5))
    batch.add(Request(1, prompt, decoding(temperature=1.0, max_new_tokens=6), 9))
    pieces = drained(batch)
    assert all(piece.top is None for piece in pieces if piece.index == 1)
    own = [piece for piece in pieces if piece.index == 0]
    ids = np.concatenate([piece.ids for piece in own])
    model = transformers.LlamaForCausalLM.from_pretrained(small_llama)
    with torch.no_grad():
        logits = model(torch.from_numpy(np.concatenate([prompt, ids]))[None].long()).logits[0]
    best = logits.log_softmax(-1)[len(prompt) - 1 :].topk(5)
    tops = [piece.top for piece in own if piece.top is not None]
    assert sum(len(top.ids) for top in tops) == len(ids) > 2
    np.testing.assert_array_equal(np.concatenate([top.ids for top in tops]), best.indices[: len(ids)])
    named = np.concatenate([top.logprobs for top in tops])
    np.testing.assert_allclose(named, best.values[: len(ids)], atol=2e-4)


def test_a_prompt_without_room_ends_at_once(backend: Backend, state: State, decoding: Decoding) -> None:
    batch = backend.continuous(state, 2)
    batch.add(Request(5, np.full(96, 4, np.int32), decoding(), 0))
    [piece] = batch.step()
    assert (piece.index, piece.ids.tolist(), piece.finish_reason) == (5, [], "length")
    assert batch.free == 2
