"""One experiment, through the public command, on 1, 2 and 4 devices: the same log, answers, rewards and model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.devices.runs import ROLLOUTS, SFT, Mesh, check_same, root_of, run_in, sampled, types, words_for
from tunix_rt.__main__ import main

ONE: Mesh = (1, 1, 1)
TWO: Mesh = (2, 1, 1)
MESHES: tuple[Mesh, ...] = ((4, 1, 1), (1, 4, 1), (2, 2, 1), TWO, (1, 2, 1), (1, 1, 2))


def check_rollouts(mesh: Mesh) -> None:
    """The same texts and rewards, of which not all are the same, and the same updates from them."""
    run, alone = (run_in(root_of(which)) for which in (mesh, ONE))
    rollouts = sampled(run)
    assert rollouts == sampled(alone)
    assert len({reward for *_, reward, _ in rollouts}) > 1 and len(rollouts) >= 27
    print(mesh, check_same(run, alone))


@pytest.mark.slow
def test_rollouts_and_what_is_learned_from_them_on_two_torch_processes(place: Path) -> None:
    for mesh in (TWO, ONE):
        assert main(["backend=torch", *ROLLOUTS, *words_for(mesh)]) == 0
    check_rollouts(TWO)


@pytest.mark.slow
def test_an_experiment_on_two_jax_devices(place: Path) -> None:
    words = ["backend=jax", *SFT, "training.evaluate_samples=0"]
    types(*([*words, *words_for(mesh)] for mesh in (TWO, ONE)))
    print(check_same(run_in(root_of(TWO)), run_in(root_of(ONE))))


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_an_experiment_on_every_mesh(backend: str, place: Path) -> None:
    words = [f"backend={backend}", *SFT, "training.max_steps=20", "generation.max_new_tokens=24"]
    types(*([*words, *words_for(mesh)] for mesh in (*MESHES, ONE)), timeout=1700)
    for mesh in MESHES:
        print(mesh, check_same(run_in(root_of(mesh)), run_in(root_of(ONE))))


@pytest.mark.acceptance
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_rollouts_on_copies_and_parts_of_the_model(backend: str, place: Path) -> None:
    meshes: tuple[Mesh, ...] = ((1, 4, 1), TWO, (1, 2, 1))
    types(*([f"backend={backend}", *ROLLOUTS, *words_for(mesh)] for mesh in (*meshes, ONE)), timeout=1700)
    for mesh in meshes:
        check_rollouts(mesh)
