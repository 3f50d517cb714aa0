"""Three seeds: which data, how it is trained, how it is sampled; a sweep over `seed` compares on one test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TOY, config_of
from tunix_rt.files import sha256_file
from tunix_rt.inputs import write_prepared
from tunix_rt.traces.prepared import PreparedData


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Manifest, and digest of the initial weights, of the data that overrides declare."""

    def make(*words: str) -> tuple[dict[str, Any], str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_prepared(config_of([*TOY, *words]), folder, None)
        prepared = PreparedData(folder)
        return dict(prepared.manifest), sha256_file(prepared.model_folder / "model.safetensors")

    return make


@pytest.mark.slow
def test_another_seed_draws_other_weights_and_asks_the_same(made: Any) -> None:
    """Prevents: seeds 0 and 1 sharing 42 of 500 test problems."""
    (first, weights), (other, other_weights) = made(), made("seed=1")
    assert first["splits"] == other["splits"]
    assert first["questions"] == other["questions"]
    assert weights != other_weights


def test_the_seed_of_the_data_set_draws_another_test_set_and_the_same_weights(made: Any) -> None:
    (first, weights), (other, other_weights) = made(), made("dataset.seed=1")
    assert first["questions"]["test"] != other["questions"]["test"]
    assert weights == other_weights


@pytest.mark.slow
def test_the_arms_of_a_comparison_are_asked_the_same(made: Any) -> None:
    """Their traces differ in the steps, which is what is compared."""
    (full, _), (none, _) = made(), made("dataset.source.steps=none")
    assert full["splits"]["test"]["sha256"] != none["splits"]["test"]["sha256"]
    assert full["questions"] == none["questions"]
