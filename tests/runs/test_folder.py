"""Run folders: names a person types, claims, stages done elsewhere, and the truth about dead processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunix_rt.errors import InputError, MachineError
from tunix_rt.files import read_json, write_json
from tunix_rt.runs.folder import RunFolder, all_runs, choose, find_done, find_run


def made(root: Path, name: str) -> RunFolder:
    run = RunFolder(root / name)
    run.path.mkdir(parents=True)
    run.begin()
    return run


def test_a_person_names_a_run_in_several_ways(tmp_path: Path) -> None:
    first, second = made(tmp_path, "quickstart/abc123"), made(tmp_path, "gsm8k/abd456")
    assert all_runs(tmp_path) == [first, second]
    for word in ("last", "gsm8k", "gsm8k/abd", "abd", "abd456", str(second.path)):
        assert find_run(tmp_path, word).path == second.path
    with pytest.raises(InputError, match=r"several runs fit \(there are: quickstart/abc123, gsm8k/abd456\)"):
        find_run(tmp_path, "ab")
    with pytest.raises(InputError, match="no such run"):
        find_run(tmp_path, "zz")


def test_a_full_name_means_that_run_though_others_begin_with_it(tmp_path: Path) -> None:
    first = made(tmp_path, "e/abc")
    made(tmp_path, "e/abc-2")
    assert find_run(tmp_path, "e/abc") == find_run(tmp_path, "abc") == first


def test_the_full_name_of_a_run_comes_before_the_name_of_an_experiment(tmp_path: Path) -> None:
    """For `rm` (every run counts) an experiment's name stands for all its runs; one run's own name for that one."""
    made(tmp_path, "abc/111"), made(tmp_path, "abc/222")
    for newest in (True, False):
        assert find_run(tmp_path, "abc/111", newest).name == "abc/111"
    assert find_run(tmp_path, "abc").name == "abc/222"
    with pytest.raises(InputError, match=r"several runs fit \(there are: abc/111, abc/222\)"):
        find_run(tmp_path, "abc", newest=False)
    exact = made(tmp_path, "other/abc")
    for newest in (True, False):
        assert find_run(tmp_path, "abc", newest) == exact
    made(tmp_path, "third/abc")
    for newest in (True, False):
        with pytest.raises(InputError, match=r"several runs fit \(there are: other/abc, third/abc\)"):
            find_run(tmp_path, "abc", newest)


def test_no_runs_yet_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run there yet; start one"):
        find_run(tmp_path, "last")


def test_new_takes_the_first_free_name(tmp_path: Path) -> None:
    assert choose(tmp_path, "e", "abc", new=True).path.name == "abc"
    made(tmp_path, "e/abc")
    assert choose(tmp_path, "e", "abc", new=False).path.name == "abc"
    assert choose(tmp_path, "e", "abc", new=True).path.name == "abc-2"
    made(tmp_path, "e/abc-2")
    assert choose(tmp_path, "e", "abc", new=True).path.name == "abc-3"


def test_a_folder_in_use_is_refused_with_the_process_named(tmp_path: Path) -> None:
    run = made(tmp_path, "e/abc")
    program = "from pathlib import Path\nfrom tunix_rt.runs.folder import RunFolder\n"
    program += f"run = RunFolder(Path({str(run.path)!r}))\n"
    program += "with run.locked():\n    run.begin()\n    print('claimed', flush=True)\n    input()\n"
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "claimed\n"
    with pytest.raises(MachineError, match=rf"in use by another process \(pid {other.pid}\)"), run.locked():
        pass
    other.communicate("\n", timeout=30)
    with run.locked():
        assert run.status()["state"] == "killed"


def test_a_killed_process_does_not_read_as_running(tmp_path: Path) -> None:
    run = made(tmp_path, "e/abc")
    assert run.status()["state"] == "running"
    file = run.path / "status.json"
    write_json(file, read_json(file) | {"process_started": 1.0})
    assert run.status()["state"] == "killed"


def test_a_stage_done_by_a_sibling_is_found_and_referred_to(tmp_path: Path) -> None:
    first, second = made(tmp_path, "e/abc"), made(tmp_path, "e/def")
    first.record_stage("train", {"identity": "t", "state": "done"})
    assert list(find_done(tmp_path, "e", "train", "t")) == [first]
    assert not list(find_done(tmp_path, "e", "train", "other"))
    assert not list(find_done(tmp_path, "other", "train", "t"))
    second.record_stage("train", {"identity": "t", "state": "done", "folder": "../abc"})
    assert second.model == first.path.resolve() / "model"
    assert second.is_done("train", "t")


def test_the_end_is_recorded_with_its_reason(tmp_path: Path) -> None:
    run = made(tmp_path, "e/abc")
    run.end("failed", "because", 4)
    status = run.status()
    assert (status["state"], status["reason"], status["exit_code"]) == ("failed", "because", 4)
    assert status["ended"] >= status["started"]
