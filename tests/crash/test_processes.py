"""A job of two processes: killed or asked to stop in any of them, the same command again ends as if nothing had been.

The processes are joined as under a launcher; the job that starts its own ends with the same bytes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.cases import JOINED, SAMPLED, Laboratory, Point, differences, reduced
from tunix_rt import faults

FOLLOWED = Point("train", "followed train_step", 2)
"""In the process that follows, just before its second step."""
DISPATCHED = Point("train", "dispatched step", 2)
MESHES = {"data": (), "shard": ("hardware.mesh.data=1", "hardware.mesh.shard=-1")}


@pytest.fixture
def pair(laboratory: Callable[..., Laboratory]) -> Laboratory:
    """Where experiments of two processes are run."""
    return laboratory("torch", 2)


@pytest.mark.slow
def test_a_run_that_is_stopped_and_killed_in_either_process_and_goes_on(pair: Laboratory) -> None:
    """Under a launcher, and in the end with a process that the command starts itself."""
    reference = pair.reference("float32")
    assert pair.stopped_at("float32", FOLLOWED, signal.SIGTERM) == []
    assert "SIGTERM received: stopped after step 2, which is saved; the same command goes on" in pair.printed()
    for point, code in ((FOLLOWED, 4), (DISPATCHED, -9)):
        assert pair.run(reference.words, {faults.POINT: point.words}) == code, pair.printed()
    assert "error: process 1 of 2 on " in pair.printed()
    assert pair.forking.run(pair.place, (*reference.words, "hardware.devices=2"), {}) == 0, pair.printed()
    assert differences(reference.folder, pair.place) == []


@pytest.mark.acceptance
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mesh", MESHES)
def test_killed_at_each_kind_of_file_and_call(mesh: str, pair: Laboratory, tmp_path: Path) -> None:
    """Also at each kind of call in the process that follows."""
    here = replace(pair, folder=tmp_path, more=MESHES[mesh])
    references = {variant: here.reference(variant) for variant in (*JOINED, *SAMPLED)}
    found = {
        f"{variant}: {point.words}": here.killed_at(variant, point) for variant, point in reduced(references, True)
    }
    assert {name: what for name, what in found.items() if what} == {}
