"""A grid one after the other: shown first, run, and what is finished is not run again."""

from __future__ import annotations

import pytest

from tests.sweeps.conftest import LONG, QUICK, Shell
from tunix_rt.sweeps.plan import estimate


@pytest.mark.slow
def test_a_preview_starts_nothing_and_tells_what_is_finished(shell: Shell) -> None:
    words = ("-m", *QUICK, "optimizer.learning_rate=1e-3,2e-3", "training.row_length=72,2")
    first = shell.types(*words, "--dry-run")
    assert first.code == 0, first.err
    assert not (shell.folder / "runs").exists()
    assert (first.out.count("missing"), first.out.count("would fail")) == (2, 2)
    assert "0 of 4 members are finished; nothing was started" in first.out
    assert "time for 2 members: unknown, no run of this experiment is finished yet" in first.out

    done = shell.types(*words)
    assert done.code == 4
    assert done.err.count("the others go on: training.row_length: 2 is shorter than dataset.max_length 72") == 2
    assert done.err.splitlines()[-1] == "error: 2 of 4 members failed"
    assert "4 members, ranked by accuracy" in done.out

    later = shell.types(
        *words[:-2], "optimizer.learning_rate=1e-3,4e-3", "training.row_length=72", "sweep.preview=true"
    )
    assert later.code == 0, later.err
    assert "1 of 2 members are finished; nothing was started" in later.out
    assert "time for 1 member: about" in later.out
    assert "median of 2 finished" in later.out


@pytest.mark.acceptance  # a quarter of a minute
def test_ctrl_c_stops_the_sweep_and_the_same_command_goes_on(shell: Shell) -> None:
    with shell.sweeping("-m", *QUICK, *LONG, "optimizer.learning_rate=1e-3,2e-3") as sweep:
        sweep.until(shell.training)
        assert sweep.ctrl_c() == 130, sweep.output()
    assert "error: SIGINT: sweep stopped; 0 of 2 members are done" in sweep.output()
    (record,) = shell.records()
    assert record["state"] == "interrupted"
    assert "started" in shell.types("-m", *QUICK, *LONG, "optimizer.learning_rate=1e-3,2e-3", "--dry-run").out


def test_a_mistake_of_every_member_is_said_once(shell: Shell) -> None:
    done = shell.types("-m", "seed=1,2", "training.max_stepz=3")
    assert done.code == 2
    assert "training.max_stepz: unknown key; did you mean 'max_steps'?" in done.err
    assert not (shell.folder / "runs").exists()


def test_time_is_never_invented() -> None:
    assert estimate(0, None) == "nothing is left to run"
    assert "unknown" in estimate(3, None)
    assert estimate(3, (90.0, 2)).startswith("time for 3 members: about 4 min of work (90 s each, median of 2 finished")
