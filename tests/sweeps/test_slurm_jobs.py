"""What SLURM is asked for, and what a member does when it is ended: tried without SLURM (with it: `tests/clusters`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.sweeps.conftest import LONG, QUICK, Shell, Sweep
from tunix_rt.errors import ConfigError
from tunix_rt.sweeps.slurm import tasks_per_node

WORKER = """
import signal, sys
from pathlib import Path
from tunix_rt.config.load import compose
from tunix_rt.runs.sweep import SweepFolder
from tunix_rt.sweeps.supervise import supervise

def queue_again(number, frame):
    print("queued again", flush=True)
    sys.exit(255)

signal.signal(signal.SIGTERM, lambda *_: None)  # as submitit does
signal.signal(signal.SIGUSR2, queue_again)
sweep = SweepFolder(Path("runs/quickstart/sweep-1").absolute())
(sweep.path / "members").mkdir(parents=True)
sweep.begin({})
words = sys.argv[1:]
supervise(sweep, words, compose(words), ".")
print("done", flush=True)
"""


@pytest.mark.slow
def test_a_member_saves_before_its_job_is_queued_again(shell: Shell) -> None:
    """Some clusters signal every process of a job, not only the task, and some send a SIGTERM first."""
    (shell.folder / "worker.py").write_text(WORKER, "utf-8")
    log = shell.folder / "output.txt"
    with log.open("wb") as out:
        worker = subprocess.Popen([sys.executable, "worker.py", *QUICK, *LONG], stdout=out, stderr=out)
    started = Sweep(worker, log)
    try:
        started.until(lambda: sum(shell.logged().values()) > 500)
        worker.terminate()
        for process in (psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)):
            process.send_signal(signal.SIGUSR2)
        assert worker.wait(60) == 255, started.output()
    finally:
        worker.kill()
        worker.wait()
    assert started.output() == "queued again\n"
    (record,) = shell.records()
    said = (record["state"], record["reason"])
    assert said == ("interrupted", "SIGUSR2 received: saved; it goes on when its job starts again")
    assert list(record["folder"].glob("checkpoints/*/checkpoint.json"))


@pytest.mark.measured
def test_a_job_has_a_task_for_each_gpu_and_one_that_vanishes_is_reported(shell: Shell) -> None:
    """Programs of SLURM's names take the job and forget it."""
    programs = shell.folder / "programs"
    programs.mkdir()
    says = {"sbatch": 'cp "$1" submitted.sh; echo Submitted batch job 7', "squeue": "", "srun": ""}
    for name, script in says.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    words = ("-m", "hydra/launcher=submitit_slurm", "hydra.launcher.nodes=2", "hydra.launcher.gpus_per_node=4")
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    done = shell.starts(*words, *QUICK, "optimizer.learning_rate=1e-3,2e-3", env={"PATH": path})
    options = [line.removeprefix("#SBATCH --") for line in (shell.folder / "submitted.sh").read_text().splitlines()]
    asked = {"nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "requeue", "signal=USR2@120", "array=0-1%2"}
    assert asked <= set(options), options
    assert done.code == 130, done.err
    for number in (0, 1):
        assert f"interrupted: its job 7_{number} is no longer in SLURM's queue (cancelled?)" in done.err
    assert done.err.splitlines()[-1] == "error: 2 of 2 members were interrupted; the same command goes on"


def test_slurm_needs_slurm(shell: Shell) -> None:
    """A process of its own: submitit sets up logging anew, for which absl closes what it took for standard error."""
    nothing = {"PATH": str(Path(sys.executable).parent)}
    done = shell.starts("+experiment=sweep_slurm", *QUICK, "optimizer.learning_rate=1e-3", env=nothing)
    assert done.code == 3
    assert done.err.splitlines()[-1].startswith("error: the launcher starts no member: RuntimeError: Could not detect")


def test_tasks_of_a_node() -> None:
    asked, on_torch, on_jax = {"tasks_per_node": None, "gpus_per_node": 4}, ["backend=torch", "seed=1"], ["seed=1"]
    assert tasks_per_node(asked, "jax", [on_torch, on_torch]) == 4
    assert tasks_per_node(asked, "jax", [on_jax]) == 1, "one process has all devices of a host"
    assert tasks_per_node(asked | {"gpus_per_node": None}, "jax", [on_torch, on_jax]) == 1
    assert tasks_per_node(asked | {"tasks_per_node": 2}, "jax", [on_torch, on_jax]) == 2
    with pytest.raises(ConfigError, match="one backend at a time"):
        tasks_per_node(asked, "jax", [on_torch, on_jax])
