"""Every launcher really runs members; none is lost with a process, and Ctrl-C ends all of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from secrets import token_hex

import psutil
import pytest

from tests.sweeps.conftest import LONG, QUICK, Shell

RATES = "optimizer.learning_rate=1e-3,2e-3,3e-3,4e-3"


@pytest.mark.acceptance  # the other kills of a launcher stay
def test_four_side_by_side_and_one_of_them_is_killed(shell: Shell) -> None:
    """They share one data set; the killed one is named with its folder, and it alone runs again."""
    words = ("+experiment=sweep_joblib", *QUICK, "hydra.launcher.n_jobs=4", RATES)
    with shell.sweeping(*words) as sweep:
        pid = sweep.until(lambda: [r["pid"] for r in shell.records() if r["state"] == "running"])[0]
        os.kill(pid, signal.SIGKILL)
        assert sweep.process.wait(200) == 4, sweep.output()
    (killed,) = (record for record in shell.records() if record["state"] == "failed")
    place = killed["folder"].relative_to(shell.folder)
    assert f"failed ({place}), the others go on: its process was ended by SIGKILL" in sweep.output()
    assert sweep.output().splitlines()[-1] == "error: 1 of 4 members failed"
    assert [line["state"] for line in shell.ranking("sweep_joblib")] == ["finished"] * 3 + ["failed"]
    assert len(list(shell.folder.glob("data/*/*/manifest.json"))) == 1
    assert not (shell.sweep("sweep_joblib") / "parallel_coordinates.png").exists(), "all answers are wrong: a tie"

    again = shell.starts(*words)
    assert again.code == 0, again.err
    assert "3 of 4 members are finished and not run again" in again.err
    assert again.err.count(": running") == 1
    assert [line["state"] for line in shell.ranking("sweep_joblib")] == ["finished"] * 4


@pytest.mark.slow
@pytest.mark.acceptance
def test_a_dead_worker_takes_no_member_along_and_ctrl_c_ends_all(shell: Shell) -> None:
    with shell.sweeping("+experiment=sweep_joblib", *QUICK, *LONG, "optimizer.learning_rate=1e-3,2e-3") as sweep:
        members = sweep.until(lambda: shell.training() if len(shell.training()) == 2 else None)
        worker = psutil.Process(members[0]).parent()
        assert worker is not None and worker.pid != sweep.process.pid
        worker.kill()
        sweep.until(lambda: "handed over again" in sweep.output())
        sizes = shell.logged()
        sweep.until(lambda: len(sizes) == 2 and all(now > sizes[run] for run, now in shell.logged().items()))
        assert sweep.ctrl_c() == 130, sweep.output()
        assert not [pid for pid in shell.training() if psutil.pid_exists(pid)]
    last = sweep.output().splitlines()[-1]
    assert last.startswith("error: SIGINT: sweep stopped; 0 of 2 members are done, 0 failed"), sweep.output()
    for record in shell.records():
        assert record["state"] == "interrupted"
        run = record["folder"]
        assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
        assert list(run.glob("checkpoints/*/checkpoint.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "typed", "devices"),
    [
        pytest.param("submitit", False, 1, marks=[pytest.mark.measured, pytest.mark.acceptance]),
        pytest.param("ray", True, 2, marks=pytest.mark.acceptance),
    ],
)
def test_members_run_and_fail_where_the_launcher_puts_them(
    launcher: str, typed: bool, devices: int, shell: Shell, root: Path
) -> None:
    """The second member fails at work, not for its config. What a launcher pickles holds no password, whether that
    was typed or is in the person's own YAML."""
    secret = token_hex(8)
    uri = f"http://op:{secret}@127.0.0.1:9"
    given = [f"tracking.uri={uri}", f"hardware.devices={devices}"]
    if not typed:
        own = shell.folder / "conf" / "tracking" / "own.yaml"
        own.parent.mkdir(parents=True)
        ours = (root / "conf" / "tracking" / "mlflow.yaml").read_text("utf-8")
        own.write_text(f"{ours}uri: {uri}\n", "utf-8")
        given[0] = "tracking=own"
    done = shell.starts(f"+experiment=sweep_{launcher}", *QUICK, *given, "optimizer.learning_rate=1e-3,1e30")
    files = [file for file in shell.folder.rglob("*") if file.is_file() and file.name != "own.yaml"]
    assert [file for file in files if secret.encode() in file.read_bytes()] == []
    if launcher == "submitit":
        assert [file for file in files if file.suffix == ".pkl" and b"TUNIX_RT_TRACKING_URI" in file.read_bytes()]
    assert done.code == 4, done.err
    good, bad = shell.ranking(f"sweep_{launcher}")
    assert (good["state"], bad["state"]) == ("finished", "failed")
    assert bad["values"]["optimizer.learning_rate"] == "1e+30"
    place = f"runs/sweep_{launcher}/{bad['folder'].removeprefix('../')}"
    assert f"failed ({place}), the others go on: loss or gradient is not finite" in done.err
    assert done.err.splitlines()[-1] == "error: 1 of 2 members failed"


@pytest.mark.parametrize(("word", "near"), [("launcher=jobbib", "joblib"), ("sweeper=optuma", "optuna")])
def test_a_misspelt_choice_is_named(word: str, near: str, shell: Shell) -> None:
    done = shell.types("-m", f"hydra/{word}", "seed=1,2")
    assert done.code == 2
    assert f"did you mean '{near}'?" in done.err
    assert len(done.err.splitlines()) == 1
