"""A signal in the middle of any stage: acknowledged, with a true word of what is saved; the command again is exact."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable

import psutil
import pytest

from tests.crash.cases import OPTIMIZERS, Laboratory, Point
from tunix_rt.tracking.syncer import served_by

STOPPED = (
    ("prepare", "written traces/train.jsonl", 1, signal.SIGINT, "during prepare; it will be done again"),
    ("train", "appended #/sessions.jsonl", 1, signal.SIGTERM, "before the first step"),
    ("train", "dispatched step", 1, signal.SIGTERM, "after step 1, which is saved"),
    ("train", "dispatched step", 5, signal.SIGINT, "after step 5, which is saved"),
    ("train", "renamed #/model", 1, signal.SIGTERM, "after step 7, which is saved"),
    ("predict", "torn #/predictions.jsonl", 6, signal.SIGTERM, "after 4 of "),
    ("evaluate", "written #/items.jsonl", 1, signal.SIGINT, "during evaluate; it will be done again"),
    ("report", "written figures/loss.png", 1, signal.SIGTERM, "during report; it will be done again"),
)


@pytest.mark.slow
def test_a_signal_in_every_stage(laboratory: Callable[[str], Laboratory]) -> None:
    """Prevents: 105 s of silence in prepare and 'stopped after step 0, which is saved'; a run that ends 'finished'."""
    here = laboratory("torch")
    for stage, name, count, number, said in STOPPED:
        assert here.stopped_at("float32", Point(stage, name, count), number) == [], name
        printed = here.printed()
        where = " after this step" if name == "dispatched step" else ""
        assert f"{number.name} received: stopping{where}; again to stop at once\n" in printed, name
        assert f"error: {number.name} received: stopped {said}" in printed, printed[-500:]
        (status,) = here.place.glob("runs/crash/*/status.json")
        ended = json.loads(status.read_text("utf-8"))
        assert (ended["state"], ended["exit_code"]) == ("interrupted", 128 + number), name
        assert here.resumed("float32") == [], name


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_every_optimizer_goes_on_where_it_was(laboratory: Callable[[str], Laboratory], backend: str) -> None:
    """What it keeps comes back to the bit, from a checkpoint of the steps before and from one made by the signal."""
    here = laboratory(backend)
    for kind in OPTIMIZERS:
        for number in (signal.SIGKILL, signal.SIGTERM):
            assert here.stopped_at(kind, Point("train", "dispatched step", 4), number) == [], kind
            assert here.resumed(kind) == [], (kind, number)


@pytest.mark.acceptance  # tests/tracking/test_store.py has the shorter one
def test_a_tracking_server_that_is_out_of_reach_keeps_nobody(laboratory: Callable[[str], Laboratory]) -> None:
    """Prevents: everything is saved, and the process ends a minute after its SIGTERM."""
    here = laboratory("torch")
    tracking = ("tracking=mlflow", "tracking.uri=http://127.0.0.1:9", "tracking.wait_seconds=300")
    before = time.monotonic()
    here.stopped_at("float32", Point("train", "dispatched step", 3), signal.SIGTERM, *tracking)
    assert "stopped after step 3, which is saved" in here.printed()
    assert time.monotonic() - before < here.reference("float32").seconds + 25
    (run,) = here.place.glob("runs/crash/*")
    if (found := served_by(run)) is not None:  # it would go on writing into the place of the next experiment
        process = psutil.Process(found["pid"])
        process.kill()
        psutil.wait_procs([process], timeout=30)
