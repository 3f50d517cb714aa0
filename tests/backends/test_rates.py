"""Products of matrices are really timed, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.conftest import config_of
from tunix_rt.backends import rates as module
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


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", '{"float32": 9, "bfloat16": "x"}', '{"float32": NaN, "bfloat16": 9}']
)
def test_a_damaged_cache_is_measured_anew(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: a traceback, or a precision that was chosen by a number that is none."""
    hardware, measured = config_of(["hardware=cpu"]).hardware, {"float32": 3.0, "bfloat16": 4.0}
    monkeypatch.setattr(module, "_measured_apart", lambda *_: measured)
    assert rates("torch", hardware, tmp_path) == measured
    (file,) = tmp_path.glob("rates/*.json")
    file.write_text(damage)
    assert rates("torch", hardware, tmp_path) == measured
    monkeypatch.delattr(module, "_measured_apart")
    assert rates("torch", hardware, tmp_path) == measured, "remembered"


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"float32": 3.0, "bfloat16": 4.0}
    monkeypatch.setattr(module, "_measured_apart", lambda *_: measured)
    (tmp_path / "rates").write_text("a file where the folder would be")
    assert rates("torch", config_of(["hardware=cpu"]).hardware, tmp_path) == measured
