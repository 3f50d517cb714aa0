"""Is the training process alive, and what does it take?"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.liveness import living, named
from tunix_rt.tracking.process import LoadRecorder


def started(code: str) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    process = subprocess.Popen([sys.executable, "-c", code])
    return process, psutil.Process(process.pid)


def test_a_killed_process_is_dead_before_anyone_has_waited_for_it() -> None:
    """A zombie still has its pid: where nobody reaps (a container without init), it has it for ever."""
    process, seen = started("import time; time.sleep(60)")
    record = named(seen)
    assert living(record) == seen
    process.send_signal(signal.SIGKILL)
    while seen.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert living(record) is None
    process.wait()
    assert living(record) is None


def test_another_process_with_the_same_pid_is_not_the_training() -> None:
    record = named(psutil.Process())
    assert living(record) is not None and record["pid"] == os.getpid()
    assert living(record | {"process_started": record["process_started"] - 100}) is None


def test_the_load_is_that_of_the_process_and_its_children(tmp_path: Path) -> None:
    child = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', 'while True: pass'], timeout=60)"
    process, seen = started(child)
    run = RunFolder(tmp_path)
    run.begin()
    load = LoadRecorder(run)
    while not (children := seen.children()):
        time.sleep(0.01)
    assert "process_cpu_percent" not in load.sample(seen)
    time.sleep(0.5)
    busy = sum(children[0].cpu_times()[:2])
    sample = load.sample(seen)
    assert busy > 0, "the test would prove nothing"
    assert 1 < sample["process_cpu_percent"] < 110
    assert sample["process_memory_megabytes"] > 5
    assert 0 < sample["machine_cpu_percent"] <= 100
    children[0].kill()
    process.wait()
    load.record()
    load.record()
    (line,) = (tmp_path / "system.jsonl").read_text().splitlines()
    assert json.loads(line)["process_memory_megabytes"] > 20, "of this process, which the run is; once in five seconds"
