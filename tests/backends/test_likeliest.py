"""The likeliest tokens at every position, and how likely given texts are: against transformers' logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunix_rt.backends.interface import Backend, Piece, Request
from tunix_rt.backends.registry import create
from tunix_rt.backends.scoring import score
from tunix_rt.backends.waves import Waves
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.config.results import GenerationConfig

TEXTS = [np.arange(1, 20, dtype=np.int32), np.array([5, 9, 9, 40], np.int32), np.array([7], np.int32)]


@pytest.fixture(scope="module", params=["torch", "jax"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    config = BackendConfig(name=request.param, precision="float32")
    return create(config, HardwareConfig(platform="cpu", threads=1), tmp_path_factory.mktemp("compiled"))


def expected(folder: Path, ids: Any) -> np.ndarray[Any, Any]:
    """Log-probabilities [N, V] of what follows each token."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.inference_mode():
        logits = LlamaForCausalLM.from_pretrained(folder)(torch.tensor(ids[None].astype(np.int64))).logits[0]
    return np.asarray(logits.log_softmax(-1))


@pytest.mark.parametrize("at_once", [None, 300])
def test_scores_of_texts(
    backend: Backend, small_llama: Path, at_once: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All logits at once, and in portions."""
    if at_once is not None:
        for name in ("torch", "jax"):
            monkeypatch.setattr(f"tunix_rt.backends.{name}.likeliest.LOGITS_AT_ONCE", at_once)
    top = 4 if at_once is None else 5  # another program
    found = score(backend, backend.load(small_llama, None), TEXTS, top)
    for text, scored in zip(TEXTS, found, strict=True):
        assert scored.top is not None
        of_next = expected(small_llama, text)[:-1]
        np.testing.assert_allclose(scored.logprobs, of_next[np.arange(len(text) - 1), text[1:]], atol=2e-4)
        order = np.argsort(-of_next, axis=-1)[:, :top]
        np.testing.assert_array_equal(scored.top.ids, order)
        np.testing.assert_allclose(scored.top.logprobs, np.take_along_axis(of_next, order, -1), atol=2e-4)


def test_more_than_the_vocabulary(backend: Backend, small_llama: Path) -> None:
    (found,) = score(backend, backend.load(small_llama, None), TEXTS[1:2], 100)
    assert found.top is not None and found.top.ids.shape == (3, 53)
    np.testing.assert_array_equal(np.sort(found.top.ids, -1), np.tile(np.arange(53), (3, 1)))


def test_pieces_name_the_likeliest_tokens(
    backend: Backend, small_llama: Path, decoding: Callable[..., GenerationConfig]
) -> None:
    """Greedily the first of them is the token itself, with its own log-probability."""
    batch = Waves(backend, backend.load(small_llama, None), 2)
    for index, text in enumerate(TEXTS[:2]):
        batch.add(Request(index, text, decoding(max_new_tokens=6), index, top_logprobs=index * 3))
    pieces: list[Piece] = []
    while batch.free < 2:
        pieces += batch.step()
    assert all(piece.top is None for piece in pieces if piece.index == 0)
    named = [piece for piece in pieces if piece.index == 1 and len(piece.ids)]
    assert named
    for piece in named:
        assert piece.top is not None and piece.top.ids.shape == (len(piece.ids), 3)
        np.testing.assert_array_equal(piece.top.ids[:, 0], piece.ids)
        np.testing.assert_allclose(piece.top.logprobs[:, 0], piece.logprobs, atol=2e-4)
