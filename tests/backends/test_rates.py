"""Products of matrices are really timed, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.conftest import config_of
from tunix_rt.backends.rates import rates
from tunix_rt.config.choices import Precision


@pytest.mark.acceptance  # minutes where bfloat16 is emulated
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_both_precisions_are_timed(backend: str, tmp_path: Path) -> None:
    """Within what a core can do: 1 GFLOP/s to 10,000."""
    found = rates(backend, config_of(["hardware=cpu", "hardware.threads=1"]).hardware, tmp_path)
    assert list(found) == list(get_args(Precision))
    assert all(0.5 < rate < 10_000 for rate in found.values())
    assert rates(backend, config_of(["hardware=cpu", "hardware.threads=1"]).hardware, tmp_path) == found
