"""Reference log-probabilities: computed once, the same for whoever needs them, checked when they are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.preferences.conftest import MakeToy, Toy
from tunix_rt.backends.interface import Backend
from tunix_rt.training.pairs import PairSource, pair_source, tokens_of

PASSES = 7
"""How many the pairs of both splits take."""


class Counting:
    """A backend that counts passes."""

    def __init__(self, backend: Backend) -> None:
        self._backend, self.passes = backend, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def logprobs(self, *given: Any, **named: Any) -> Any:
        self.passes += 1
        return self._backend.logprobs(*given, **named)


@pytest.fixture
def fresh(make_toy: MakeToy) -> Toy:
    return make_toy()


def made(toy: Toy, backend: Any) -> tuple[PairSource, int, list[Path]]:
    """(source, passes that making it took, files of all references)."""
    counting = Counting(backend)
    source, _ = pair_source(toy.config.objective, toy.config.training, toy.data, counting, toy.setup)  # type: ignore[arg-type]
    place = toy.data.folder.with_name(f"{toy.data.folder.name}.reference")
    return source, counting.passes, sorted(place.glob("*/train.float32"))


def test_they_are_computed_once_and_are_those_of_the_start(fresh: Toy, torch: Backend) -> None:
    source, passes, files = made(fresh, torch)
    splits = fresh.data.manifest["splits"]
    assert sum(-(-splits[split]["count"] // 8) for split in ("train", "validation")) == PASSES, "8 pairs at once"
    assert passes == PASSES and len(files) == 1
    state = torch.load(fresh.data.model_folder, None)
    assert source.reference is not None
    for step in (0, 3):
        batch = source.order.batch_at(step)
        tokens = tokens_of(torch, state, [batch], source.reference)
        assert tokens.reference is not None
        np.testing.assert_allclose(tokens.reference, tokens.logprobs, atol=1e-5)
    again, passes, _ = made(fresh, torch)
    assert passes == 0 and again.reference is not None
    assert np.array_equal(again.reference.values, source.reference.values)


def test_what_is_damaged_is_computed_again_identically(
    fresh: Toy, torch: Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, (file,) = made(fresh, torch)
    before = file.read_bytes()
    file.write_bytes(before[:-4] + b"\0\0\0\0")
    _, passes, (file,) = made(fresh, torch)
    assert passes == PASSES and file.read_bytes() == before
    assert "the reference log-probabilities are computed again" in capsys.readouterr().err


def test_another_model_or_layout_has_its_own(fresh: Toy, torch: Backend) -> None:
    made(fresh, torch)
    rows = replace(fresh.config.training, global_batch_size=4)
    _, passes, files = made(replace(fresh, config=replace(fresh.config, training=rows)), torch)
    assert passes > 0 and len(files) == 2
    weights = fresh.data.folder / "model" / "generation_config.json"
    weights.write_text(weights.read_text("utf-8") + "\n", "utf-8")
    fresh.data.write_manifest(fresh.data.manifest | {"model": {"folder": "model", "tokenizer": "", "files": {}}})
    _, passes, files = made(fresh, torch)
    assert passes == PASSES and len(files) == 3


def test_an_objective_without_a_reference_computes_none(fresh: Toy, make_toy: MakeToy, torch: Backend) -> None:
    toy = make_toy("objective=simpo")
    source, passes, files = made(toy, torch)
    assert (source.reference, passes, files) == (None, 0, [])
