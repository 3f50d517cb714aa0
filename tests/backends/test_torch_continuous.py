"""torch's continuous batch: requests that join, leave and share what was read, against each of them alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.backends.answers import Answer, collected, drained
from tests.backends.test_torch_generate import count_read
from tunix_rt.backends.interface import Backend, Piece, Request, State
from tunix_rt.backends.registry import create
from tunix_rt.backends.torch.prefixes import Prefixes
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig

Decoding = Callable[..., GenerationConfig]


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    hardware = HardwareConfig(platform="cpu", threads=1)
    return create(BackendConfig(name="torch", precision="float32"), hardware, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def state(backend: Backend, small_llama: Path) -> State:
    return backend.load(small_llama, None)


@pytest.fixture(scope="module")
def requests(decoding: Decoding) -> list[Request]:
    """24 of several lengths, limits and settings."""
    random = np.random.default_rng(11)
    settings = [{}, {"temperature": 1.0}, {"temperature": 0.8, "top_k": 12}, {"temperature": 1.2, "top_p": 0.9}]
    return [
        Request(
            index=100 + i,
            prompt=random.integers(4, 53, random.integers(1, 40)).astype(np.int32),
            generation=decoding(max_new_tokens=int(random.integers(1, 30)), **settings[i % 4]),
            seed=2**63 + i,
            top_logprobs=i % 3,
        )
        for i in range(24)
    ]


def alone(backend: Backend, state: State, request: Request) -> Answer:
    pieces = backend.generate(state, [request.prompt], request.generation, [request.seed])
    return collected(pieces)[0]


def as_alone(backend: Backend, state: State, requests: list[Request], pieces: list[Piece]) -> None:
    found = collected(pieces)
    assert found.keys() == {request.index for request in requests}
    for request in requests:
        ids, logprobs, reason = alone(backend, state, request)
        assert (found[request.index][0], found[request.index][2]) == (ids, reason)
        np.testing.assert_allclose(found[request.index][1], logprobs, atol=2e-4)


def test_who_joins_late_is_answered_as_alone(backend: Backend, state: State, requests: list[Request]) -> None:
    """Into 5 rows, whenever one is free after some steps: rows at any position, with any settings, together."""
    batch, waiting, pieces = backend.continuous(state, 5), list(requests), []
    assert batch.step() == []
    for step in range(10_000):
        while waiting and batch.free and step % 3 == 0:
            batch.add(waiting.pop(0))
        made = batch.step()
        pieces += made
        if not waiting and not made:
            break
    assert batch.free == 5
    as_alone(backend, state, requests, pieces)


def test_a_full_batch_refuses_and_an_aborted_row_is_free(
    backend: Backend, state: State, requests: list[Request]
) -> None:
    first, second, third = [request for request in requests if request.generation.max_new_tokens > 5][:3]
    batch = backend.continuous(state, 2)
    batch.add(first)
    batch.add(second)
    with pytest.raises(ValueError, match="all 2 rows"):
        batch.add(third)
    batch.abort(second.index)
    batch.abort(12345)
    assert batch.free == 1
    pieces = batch.step()
    batch.abort(first.index)
    assert batch.free == 2
    assert {piece.index for piece in pieces} == {first.index}
    batch.add(third)
    as_alone(backend, state, [third], drained(batch))


def test_the_likeliest_tokens_are_named_with_their_logprobs(
    backend: Backend, state: State, decoding: Decoding, small_llama: Path
) -> None:
    """Of each new token, in the order of transformers' log-probabilities."""
    import transformers

    prompt = np.arange(4, 20, dtype=np.int32)
    batch = backend.continuous(state, 3)
    batch.add(Request(0, prompt, decoding(temperature=1.0, max_new_tokens=6), 8, top_logprobs=5))
    batch.add(Request(1, prompt, decoding(temperature=1.0, max_new_tokens=6), 9))
    pieces = drained(batch)
    assert all(piece.top is None for piece in pieces if piece.index == 1)
    own = [piece for piece in pieces if piece.index == 0]
    ids = np.concatenate([piece.ids for piece in own])
    model = transformers.LlamaForCausalLM.from_pretrained(small_llama)
    with torch.no_grad():
        logits = model(torch.from_numpy(np.concatenate([prompt, ids]))[None].long()).logits[0]
    expected = logits.log_softmax(-1)[len(prompt) - 1 :].topk(5)
    tops = [piece.top for piece in own if piece.top is not None]
    assert sum(len(top.ids) for top in tops) == len(ids) > 2
    np.testing.assert_array_equal(np.concatenate([top.ids for top in tops]), expected.indices[: len(ids)])
    found = np.concatenate([top.logprobs for top in tops])
    np.testing.assert_allclose(found, expected.values[: len(ids)], atol=2e-4)


def test_what_was_read_is_not_read_again(
    backend: Backend, state: State, decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A common instruction, among those that come together and later ones; a conversation that goes on."""
    random = np.random.default_rng(3)
    common = random.integers(4, 53, 30)
    prompts = [np.concatenate([common, random.integers(4, 53, n)]).astype(np.int32) for n in (5, 9, 2, 7)]
    asked = [Request(i, prompt, decoding(max_new_tokens=6), i) for i, prompt in enumerate(prompts)]
    read = count_read(monkeypatch)
    batch = backend.continuous(state, 4)
    for request in asked[:3]:
        batch.add(request)
    pieces = drained(batch)
    assert read == [35, 9 + 2]
    batch.add(asked[3])
    pieces += drained(batch)
    assert read[2:] == [7]
    said = collected(pieces)[3][0]
    again = np.concatenate([prompts[3], said, random.integers(4, 53, 4)]).astype(np.int32)
    asked.append(Request(4, again, decoding(max_new_tokens=6), 4))
    batch.add(asked[4])
    pieces += drained(batch)
    assert read[3] in (4, 5), "the last token that was made may not have been read"
    as_alone(backend, state, asked, pieces)


def test_a_prompt_without_room_ends_at_once(backend: Backend, state: State, decoding: Decoding) -> None:
    batch = backend.continuous(state, 1)
    batch.add(Request(7, np.full(96, 5, np.int32), decoding(), 0))
    (piece,) = batch.step()
    assert (piece.index, len(piece.ids), piece.finish_reason) == (7, 0, "length")
    assert batch.free == 1


def test_what_is_known_of_rows_grows_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a copy at every new token."""
    copies: list[int] = []
    pad = np.pad

    def counted(*given: Any) -> Any:
        copies.append(1)
        return pad(*given)

    monkeypatch.setattr(np, "pad", counted)
    prefixes = Prefixes(2)
    for length in range(100, 1000):
        prefixes.reserve(length)
    assert len(copies) < 15
