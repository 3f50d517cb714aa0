"""In MLflow a sweep is one parent run with its members as children; the same sweep again finds the parent again."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from tests.sweeps.conftest import QUICK, Shell
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.tracking.mlflow import connect
from tunix_rt.tracking.sweep import main, status_of

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
TRACKED = tuple(word for word in QUICK if word != "tracking=none")


def query(shell: Shell, words: str) -> list[Any]:
    with sqlite3.connect(shell.folder / "mlflow.db") as store:
        found = store.execute(words).fetchall()
    store.close()
    return found


@pytest.mark.slow
def test_members_are_children_of_one_run(shell: Shell) -> None:
    words = ("-m", *TRACKED, "tracking.num_traces=0", "tracking.system_metrics=false", "tracking.wait_seconds=300")
    done = shell.starts(*words, "optimizer.learning_rate=1e-3,1e30")
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
    assert "| rank | optimizer.learning_rate | state | accuracy |" in tags["mlflow.note.content"]
    ((failed,),) = query(shell, "select value from latest_metrics where key = 'members/failed'")
    assert failed == 1


def test_the_parent_is_found_again_and_ends_as_the_sweep_does(tmp_path: Any) -> None:
    """Nobody runs here: a sweep folder as one process leaves it, sent twice."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    sweep = SweepFolder(tmp_path / "runs" / "quickstart" / "sweep-0123456789ab")
    facts = {"experiment": "quickstart", "metric": "accuracy", "direction": "maximize", "varying": ["seed"]}
    tracking = {"kind": "mlflow", "uri": uri, "experiment": "tests", "wait_seconds": 20.0}
    (sweep.path / "members").mkdir(parents=True)
    for state, expected in (("interrupted", "KILLED"), ("finished", "FINISHED")):
        sweep.begin(facts | {"tracking": tracking, "directory": str(tmp_path)})
        assert status_of(sweep) == "RUNNING"
        sweep.write(MemberRecord(("seed=1",), "finished", "runs/a"))
        line = {
            "values": {"seed": "1"},
            "state": "finished",
            "folder": "runs/a",
            "value": 0.5,
            "rank": 1,
            "leading": True,
            "interval": [0.1, 0.9],
        }
        sweep.ranking.write_text(json.dumps([line | {"metrics": {}, "reason": None}]))
        sweep.end(state)  # type: ignore[arg-type]
        assert main([str(sweep.path)]) == 0
        client = connect(uri)
        (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
        assert run.info.status == expected
        assert run.data.metrics["first/accuracy"] == 0.5
        assert run.data.tags["best.seed"] == "1"


def test_a_sweep_whose_process_is_gone_is_killed(tmp_path: Any) -> None:
    sweep = SweepFolder(tmp_path)
    sweep.begin({})
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": 2**22 + 1}))
    assert status_of(sweep) == "KILLED"
