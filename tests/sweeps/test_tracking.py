"""In MLflow a sweep is one parent run with its members as children, and one sync process sends them all."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.sweeps.conftest import LONG, QUICK, Shell
from tunix_rt.files import write_json
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.tracking.state import status_of
from tunix_rt.tracking.stores.mlflow import connect
from tunix_rt.tracking.sync import main

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
TRACKED = (
    *(word for word in QUICK if word != "tracking=none"),
    *("tracking.num_traces=0", "tracking.system_metrics=false", "tracking.wait_seconds=300"),
)


def query(shell: Shell, words: str) -> list[Any]:
    with sqlite3.connect(shell.folder / "mlflow.db") as store:
        found = store.execute(words).fetchall()
    store.close()
    return found


@pytest.mark.slow
def test_members_are_children_of_one_run(shell: Shell) -> None:
    """Prevents: a process per member that imports MLflow, 2.3 s and 3.2 CPU-seconds each."""
    done = shell.starts("-m", *TRACKED, "optimizer.learning_rate=1e-3,1e30")
    assert done.code == 4, done.err
    ((parent, status),) = query(shell, "select run_uuid, status from runs where name like '%sweep%'")
    assert status == "FAILED"
    children = query(shell, "select run_uuid, value from tags where key = 'mlflow.parentRunId'")
    assert len(children) == 2
    assert {value for _, value in children} == {parent}
    files = {file.name for file in (shell.folder / "mlruns").rglob(f"{parent}/artifacts/*")}
    assert {"ranking.json", "ranking_table.json"} <= files
    tags = dict(query(shell, f"select key, value from tags where run_uuid = '{parent}'"))
    assert tags["best.optimizer.learning_rate"] == "0.001"
    assert "| rank | optimizer.learning_rate | accuracy | 95 % interval | state | run |" in tags["mlflow.note.content"]
    assert {state for (state,) in query(shell, "select status from runs")} == {"FAILED", "FINISHED"}
    logs = [file.read_text() for file in shell.folder.glob("runs/quickstart/*/tracking.log")]
    assert len(logs) == 3 and all("all sent" in log for log in logs)
    assert psutil.wait_procs(sync_processes(shell.folder), timeout=60)[1] == []
    assert not list(shell.folder.glob("runs/quickstart/*/tracking_process.json"))
    ((failed,),) = query(shell, "select value from latest_metrics where key = 'members/failed'")
    assert failed == 1


def test_the_parent_is_found_again_and_ends_as_the_sweep_does(tmp_path: Any) -> None:
    """Nobody runs here: a sweep folder as one process leaves it, sent twice."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sweep = SweepFolder(tmp_path / "runs" / "quickstart" / "sweep-0123456789ab")
    facts = {"experiment": "quickstart", "metric": "accuracy", "direction": "maximize", "varying": ["seed"]}
    tracking = {"kind": "mlflow", "uri": uri, "experiment": "tests", "wait_seconds": 20.0}
    tracking |= {"num_traces": 0, "log_model": False, "system_metrics": False}
    (sweep.path / "members").mkdir(parents=True)
    for state, expected in (("interrupted", "KILLED"), ("finished", "FINISHED")):
        sweep.begin(facts | {"tracking": tracking, "directory": str(tmp_path)})
        assert status_of(sweep) == "running"
        sweep.write(MemberRecord(("seed=1",), "finished", "runs/a"))
        line = {"values": {"seed": "1"}, "state": "finished", "folder": "runs/a", "value": 0.5, "interval": [0.1, 0.9]}
        line |= {"rank": 1, "leading": True}
        sweep.ranking.write_text(json.dumps([line | {"metrics": {}, "reason": None}]))
        sweep.end(state)  # type: ignore[arg-type]
        assert main([str(sweep.path)]) == 0
        client = connect(uri)
        (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
        assert run.info.status == expected
        assert run.data.metrics["first/accuracy"] == 0.5
        assert run.data.tags["best.seed"] == "1"
    sweep.begin(facts | {"tracking": tracking, "directory": str(tmp_path)})
    lines = [line | {"values": {"seed": seed}, "metrics": {}, "reason": None} for seed in ("1", "2")]
    sweep.ranking.write_text(json.dumps(lines))
    sweep.end("finished")
    assert main([str(sweep.path)]) == 0
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert (run.data.tags["best.seed"], run.data.tags["best.run_folder"]) == ("", "none"), "a tie: none of them is best"
    note = run.data.tags["mlflow.note.content"]
    assert (
        "**2 members, ranked by accuracy** (maximize; = marks those that cannot be told apart from the first)" in note
    )
    assert "| 1= | 2 | 50.0 % | [10.0 %, 90.0 %] | finished | a |" in note


def test_a_sweep_on_another_host_goes_on_as_long_as_its_heartbeat(tmp_path: Path) -> None:
    """Prevents: a sweep that is sent by hand from a second host is marked killed while it runs."""
    sweep = SweepFolder(tmp_path / "runs" / "quickstart" / "sweep-0123456789ab")
    sweep.path.mkdir(parents=True)
    sweep.begin({})
    write_json(sweep.path / "sweep.json", sweep.status() | {"host": "elsewhere"})
    assert status_of(sweep) == "running"
    os.utime(sweep.path / "sweep.json", (0, 0))
    assert status_of(sweep) == "killed"


def sync_processes(folder: Path) -> list[psutil.Process]:
    """Sync processes of runs and sweeps below a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "tunix_rt.tracking.sync" in words and any(word.startswith(str(folder)) for word in words):
            found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.acceptance
def test_a_killed_sweep_leaves_its_members_marked(shell: Shell) -> None:
    """SIGKILL to the whole group of the sweep: its sync process, which has a session of its own, says what became."""
    words = ("-m", *TRACKED, *LONG, "optimizer.learning_rate=1e-3,2e-3")

    def in_the_store() -> bool:
        if not (shell.folder / "mlflow.db").exists():
            return False
        try:
            return len(query(shell, "select distinct run_uuid from metrics")) == 1
        except sqlite3.OperationalError:
            return False

    with shell.sweeping(*words) as sweep:
        sweep.until(in_the_store)
        (process,) = sync_processes(shell.folder)
        os.killpg(sweep.process.pid, signal.SIGKILL)
        sweep.process.wait()
        assert psutil.wait_procs([process], timeout=120)[1] == []
    states = query(shell, "select status, count(*) from runs group by status")
    assert states == [("KILLED", 2)], "the sweep and the member that ran; the other one never began"
