"""Identity: what changes it, what never does, and that stages take what the table says."""

from __future__ import annotations

import pytest

from tests.conftest import config_of
from tunix_rt.config.identity import STAGES, identities


@pytest.mark.parametrize(
    ("override", "first_changed"),
    [
        ("seed=1", "prepare"),
        ("dataset.limit.train=10", "prepare"),
        ("model.source.hidden_size=128", "prepare"),
        ("format.step_end='|'", "prepare"),
        ("backend=torch", "train"),
        ("model/adapter=lora", "train"),
        ("optimizer.learning_rate=1e-3", "train"),
        ("training.max_steps=100", "train"),
        ("generation.max_new_tokens=9", "predict"),
        ("evaluation=numeric", "evaluate"),
    ],
)
def test_a_declared_value_changes_its_stage_and_the_later_ones_only(override: str, first_changed: str) -> None:
    before, after = identities(config_of(), {}), identities(config_of([override]), {})
    changed = [stage for stage in STAGES if before[stage] != after[stage]]
    assert changed == list(STAGES)[list(STAGES).index(first_changed) :]


@pytest.mark.parametrize(
    "override",
    ["hardware.threads=1", "checkpoint.keep=7", "tracking=none", "run.root=elsewhere", "debug=true", "sweep.metric=x"],
)
def test_where_and_how_it_runs_never_enters(override: str) -> None:
    assert identities(config_of(), {}) == identities(config_of([override]), {})


def test_the_content_of_named_files_enters() -> None:
    assert identities(config_of(), {"train": "a"})["prepare"] != identities(config_of(), {"train": "b"})["prepare"]


def test_the_content_of_an_adapter_that_is_trained_on_enters_where_it_is_used() -> None:
    first, second = (identities(config_of(), {"model.adapter": content}) for content in "ab")
    assert (first["prepare"] == second["prepare"], first["train"] == second["train"]) == (True, False)
