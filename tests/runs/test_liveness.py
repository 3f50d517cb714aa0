"""Who works in a folder: on this host, before a reboot, on another host; and what each machine of a run was."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tunix_rt.errors import MachineError
from tunix_rt.files import read_json, write_json
from tunix_rt.runs import liveness
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.liveness import STALE, heartbeat
from tunix_rt.runs.sessions import begin_session, end_session, machine_of, same_machine


def begun(folder: Path, **facts: Any) -> RunFolder:
    """A run that this process has begun, but for those facts."""
    run = RunFolder(folder / "runs" / "e" / "aaaaaaaaaaaa")
    run.path.mkdir(parents=True)
    run.begin()
    write_json(run.status_file, read_json(run.status_file) | facts)
    return run


def silent(run: RunFolder, seconds: float) -> RunFolder:
    """The same, last heard of so long ago."""
    os.utime(run.status_file, (time.time() - seconds,) * 2)
    return run


def test_another_host_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    """Prevents: a run on a compute node that reads `killed` on the login node, since that has no such process."""
    run = silent(begun(tmp_path, host="node7", pid=1), STALE / 2)
    assert run.status()["state"] == "running"
    assert silent(run, STALE + 1).status()["state"] == "killed"


def test_a_process_from_before_a_reboot_is_dead_whoever_has_its_number(tmp_path: Path) -> None:
    run = begun(tmp_path)
    assert run.status()["state"] == "running"
    write_json(run.status_file, read_json(run.status_file) | {"boot": "another"})
    assert run.status()["state"] == "killed"


def test_a_folder_in_use_on_another_host_is_refused_and_a_silent_one_is_not(tmp_path: Path) -> None:
    """Prevents: `rm` and `gc` that take what a run on another node writes, since no lock of it is seen here."""
    run = silent(begun(tmp_path, host="node7", pid=17), 5)
    said = r"in use by another process \(pid 17 on node7, last heartbeat 5 s ago\)"
    with pytest.raises(MachineError, match=said), run.locked():
        raise AssertionError
    with silent(run, STALE + 1).locked():
        pass


def test_who_comes_after_a_dead_node_waits_for_its_heart_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents: a job requeued on another node at once that fails, since the dead one was heard of lately."""
    monkeypatch.setattr("tunix_rt.runs.folder.STALE", 7.0)
    monkeypatch.setattr(liveness, "STALE", 7.0)
    run = silent(begun(tmp_path, host="node7", pid=17), 6)
    with run.locked(patient=True):
        assert run.status()["state"] == "killed"


def test_a_heart_beats_while_somebody_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "HEARTBEAT", 0.05)
    run = silent(begun(tmp_path), 1000)
    with heartbeat(run.status_file):
        deadline = time.monotonic() + 30
        while liveness.seconds_since_heartbeat(run.status_file) > 100 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert liveness.seconds_since_heartbeat(run.status_file) < 100
    assert run.status()["state"] == "running", "its content is untouched"


def test_bits_are_expected_again_only_where_all_sessions_had_one_kind_of_machine(tmp_path: Path) -> None:
    """Prevents: a run made on A, B, B that is called bit-exact, since only the last two were compared."""
    run = begun(tmp_path)
    assert machine_of(run) is None
    a, b = {"torch": "2"}, {"torch": "3"}
    assert same_machine(run, "train", a)
    begin_session(run, "train", a, 1)
    end_session(run, "train", 5)
    first = machine_of(run)
    assert first is not None and same_machine(run, "train", a) and not same_machine(run, "train", b)
    begin_session(run, "train", b, 6)
    begin_session(run, "train", b, 8)
    assert machine_of(run) is None
    lines = (run.path / "sessions.jsonl").read_text().splitlines()
    assert len(lines) == 4 and '"first_step": 8' in lines[3]


def test_predictions_of_another_machine_count_too(tmp_path: Path) -> None:
    run = begun(tmp_path)
    begin_session(run, "train", {"torch": "2"}, 1)
    begin_session(run, "predict", {"torch": "2"})
    assert machine_of(run) is not None
    begin_session(run, "predict", {"torch": "3"})
    assert machine_of(run) is None


def test_what_earlier_versions_knew_of_machines_is_believed(tmp_path: Path) -> None:
    run = begun(tmp_path)
    write_json(run.path / "fingerprint.json", {"fingerprint": "f", "bit_exact": True})
    assert machine_of(run) == "f"
    write_json(run.path / "fingerprint.json", {"fingerprint": "f", "bit_exact": False})
    assert machine_of(run) is None
