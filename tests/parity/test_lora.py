"""LoRA's course on both backends, on the quickstart's data: the curves agree as those of the whole model do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity.test_jax_torch import Both, curve, moved_by_an_ulp
from tunix_rt.backends.interface import AdapterSetup
from tunix_rt.config.model import LoraAdapter
from tunix_rt.models.adapter_folder import Base

LORA = LoraAdapter(kind="lora", rank=8, alpha=16.0, dropout=0.0, target="all-linear", rslora=False, path=None)


@pytest.mark.slow
@pytest.mark.parametrize("num_steps", [25, pytest.param(200, marks=pytest.mark.acceptance)])
def test_whole_curves_at_a_rate_where_they_can_agree(recipe: Any, both: Both, num_steps: int, tmp_path: Path) -> None:
    """At 1e-3 to 1e-4. The control, one frozen weight moved by one ulp, must stay below 1e-5; else the test is void."""
    setup = replace(recipe.setup(), adapter=AdapterSetup(LORA, Base(None, None, None)))
    rates = [recipe.rate_at(step, peak=1e-3) for step in range(1, num_steps + 1)]
    expected = curve(both["torch"], both["torch"].load(recipe.model, setup), recipe.batch_at(), rates)
    assert expected[-1] < expected[0] - 0.01, "nothing was learned"
    found = curve(both["jax"], both["jax"].load(recipe.model, setup), recipe.batch_at(), rates)
    moved = moved_by_an_ulp(recipe.model, tmp_path / "moved")
    control = curve(both["torch"], both["torch"].load(moved, setup), recipe.batch_at(), rates)
    worst = {name: np.abs(values / expected - 1).max() for name, values in (("control", control), ("jax", found))}
    print(f"largest relative differences over {num_steps} steps of LoRA at 1e-3: {worst}")
    assert 0 < worst["control"] < 1e-5, "void: one ulp changes the curve too much, or not at all"
    assert worst["jax"] < 1e-4
