"""`backend.precision: auto`: what is chosen, that it counts like a declared one, and when it is measured again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import config_of
from tunix_rt import precision
from tunix_rt.backends import rates as measuring
from tunix_rt.backends.processes.world import ALONE
from tunix_rt.backends.rates import Rates, rates
from tunix_rt.config.identity import identities
from tunix_rt.errors import ConfigError
from tunix_rt.precision import decided, slower_than_float32

AUTO = "backend.precision=auto"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Rates]:
    """What the next measurements find; one without an entry fails."""
    found: list[Rates] = []
    monkeypatch.setattr(measuring, "_measured_apart", lambda *_: found.pop(0))
    return found


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("half", "chosen"), [(90.0, "float32"), (109.0, "float32"), (111.0, "bfloat16"), (400.0, "bfloat16")]
)
def test_bfloat16_is_chosen_where_it_is_faster_by_a_tenth(measured: list[Rates], half: float, chosen: str) -> None:
    """Noise must not cost accuracy."""
    measured.append({"float32": 100.0, "bfloat16": half})
    found = decided(config_of(["backend=jax", AUTO])).backend
    assert (found.precision, found.chosen_by) == (chosen, f"float32 100, bfloat16 {half:.3g} GFLOP/s")


def test_what_was_chosen_has_the_identity_of_what_is_declared(measured: list[Rates]) -> None:
    """A run that was decided goes on, is referred to and repeated as one that declared the same."""
    measured.append({"float32": 100.0, "bfloat16": 300.0})
    found = decided(config_of(["backend=torch", AUTO]))
    assert identities(found, {}) == identities(config_of(["backend=torch", "backend.precision=bfloat16"]), {})
    assert decided(found) == found, "what is recorded is not measured again"


def test_a_device_is_measured_once_for_each_framework_and_number_of_threads(measured: list[Rates]) -> None:
    """Prevents: a run that resumes with another precision, since the machine was busy."""
    measured += [{"float32": 100.0, "bfloat16": rate} for rate in (50.0, 200.0, 300.0)]
    asked = [("jax", 1), ("jax", 1), ("torch", 1), ("jax", 2), ("torch", 1), ("jax", 2)]
    found = [
        decided(config_of([f"backend={name}", f"hardware.threads={threads}", AUTO])).backend.chosen_by
        for name, threads in asked
    ]
    assert [str(line).split()[3] for line in found] == ["50", "50", "200", "300", "200", "300"]


def test_another_card_that_is_the_first_one_is_measured_by_itself(
    measured: list[Rates], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: two kinds of GPU in one machine, and the precision of the one chosen for the other."""
    measured += [{"float32": 100.0, "bfloat16": rate} for rate in (50.0, 200.0)]
    found = []
    for card in ("0", "1", "0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", card)
        found.append(decided(config_of(["backend=torch", AUTO])).backend.precision)
    assert found == ["float32", "bfloat16", "float32"]


@pytest.mark.usefixtures("measured")
def test_what_cannot_be_measured_has_to_be_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to write."""
    monkeypatch.setattr("tunix_rt.backends.registry.require", lambda _name: None)
    with pytest.raises(ConfigError, match="tunix cannot measure it; declare"):
        decided(config_of(["backend=tunix", AUTO]))
    monkeypatch.setattr("tunix_rt.backends.processes.start.launched", lambda: replace(ALONE, size=2))
    with pytest.raises(ConfigError, match="several processes"):
        rates("torch", config_of([]).hardware, tmp_path)


def test_only_a_declared_bfloat16_that_is_slower_on_a_cpu_is_warned_of(measured: list[Rates]) -> None:
    """What was chosen is the faster one; a GPU is not measured for a warning."""
    declared = config_of(["backend=jax", "backend.precision=bfloat16"])
    assert slower_than_float32(declared, "gpu") is None
    assert slower_than_float32(config_of(["backend=jax"]), "cpu") is None
    measured.append({"float32": 195.0, "bfloat16": 165.0})
    assert slower_than_float32(declared, "cpu") == "float32 195, bfloat16 165 GFLOP/s"
    assert precision.faster({"float32": 195.0, "bfloat16": 165.0}) == "float32"
