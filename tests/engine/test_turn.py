"""Runs that need the same training do it one after the other, and the later ones find it done."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import TOY
from tunix_rt.engine.turn import turn
from tunix_rt.errors import Interrupted
from tunix_rt.files import read_json, write_json
from tunix_rt.runs.folder import RunFolder, all_runs
from tunix_rt.runs.interrupt import Interrupt

HOLD = """
import sys
from pathlib import Path
from tests.conftest import TOY
from tunix_rt.engine.turn import turn
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.interrupt import Interrupt
run = RunFolder(Path(sys.argv[1]))
with turn(run, "train", "t", Interrupt(run.path / "stop")):
    run.begin()
    run.record_stage("train", {"identity": "t", "state": "begun"})
    print("mine", flush=True)
    sys.stdin.read()
"""


def made(root: Path, name: str) -> RunFolder:
    run = RunFolder(root / "e" / name)
    run.path.mkdir(parents=True)
    return run


def test_the_second_waits_and_takes_over_when_the_first_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: two members of a sweep over temperatures that train the same model side by side."""
    first, second = made(tmp_path, "aaa"), made(tmp_path, "bbb")
    command = [sys.executable, "-c", HOLD, str(first.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "mine\n"
        with turn(second, "train", "other", Interrupt(second.path / "stop")):
            pass
        assert "waiting" not in capsys.readouterr().err, "another training is nobody's business"
        (second.path / "stop").touch()
        waiting = turn(second, "train", "t", Interrupt(second.path / "stop"))
        with pytest.raises(Interrupted, match="stopped before train"), waiting:
            raise AssertionError
        assert "train: waiting for e/aaa, which does the same just now" in capsys.readouterr().err
        threading.Timer(0.5, process.kill).start()
        with turn(second, "train", "t", Interrupt(second.path / "stop")):
            assert process.wait(10) == -9


def test_a_run_on_another_host_is_waited_for_by_its_heartbeat(tmp_path: Path) -> None:
    """A lock of another host may not be seen here."""
    first, second = made(tmp_path, "aaa"), made(tmp_path, "bbb")
    first.begin()
    write_json(first.status_file, read_json(first.status_file) | {"host": "node7"})
    first.record_stage("train", {"identity": "t", "state": "begun"})

    def ends() -> None:
        first.record_stage("train", {"identity": "t", "state": "done"})

    threading.Timer(1.0, ends).start()
    with turn(second, "train", "t", Interrupt(second.path / "stop")):
        assert first.stages()["train"]["state"] == "done"


@pytest.mark.slow
def test_two_runs_that_differ_in_generation_alone_train_once(work: Path) -> None:
    """Prevents: a parallel sweep over `generation.…` that costs as many trainings as members."""
    words = [sys.executable, "-m", "tunix_rt", "backend=torch", *TOY, "training.max_steps=200"]
    words += ["training.evaluate_every=null", "checkpoint.save_every=100"]
    both = [
        subprocess.Popen([*words, f"generation.max_new_tokens={n}"], stderr=subprocess.PIPE, text=True) for n in (4, 5)
    ]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    runs = all_runs(work / "runs")
    assert sorted((run.path / "model").is_dir() for run in runs) == [False, True]
    assert sum("train: done by" in text for text in said) == 1
    first, second = (read_json(run.metrics) for run in runs)
    assert first["n"] == second["n"] == 4
