"""Is the training process alive, and what does it take?"""

import os
import signal
import subprocess
import sys
import time

import psutil

from tunix_rt.tracking.process import TrainingProcess


def started(code: str) -> tuple[subprocess.Popen[bytes], TrainingProcess]:
    process = subprocess.Popen([sys.executable, "-c", code])
    created = psutil.Process(process.pid).create_time()
    return process, TrainingProcess.of({"pid": process.pid, "process_started": created})


def test_a_killed_process_is_dead_before_anyone_has_waited_for_it() -> None:
    """A zombie still has its pid: where nobody reaps (a container without init), it has it for ever."""
    process, training = started("import time; time.sleep(60)")
    assert training.alive()
    process.send_signal(signal.SIGKILL)
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert not training.alive()
    assert training.sample() == {}
    process.wait()
    assert not training.alive()


def test_another_process_with_the_same_pid_is_not_the_training() -> None:
    mine = psutil.Process().create_time()
    assert TrainingProcess(os.getpid(), mine).alive()
    assert not TrainingProcess(os.getpid(), mine - 100).alive()


def test_the_load_is_that_of_the_process_and_its_children() -> None:
    child = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', 'while True: pass'], timeout=60)"
    process, training = started(child)
    while not (children := psutil.Process(process.pid).children()):
        time.sleep(0.01)
    assert "process_cpu_percent" not in training.sample()
    time.sleep(0.5)
    busy = sum(children[0].cpu_times()[:2])
    sample = training.sample()
    assert busy > 0, "the test would prove nothing"
    assert 1 < sample["process_cpu_percent"] < 110
    assert sample["process_memory_megabytes"] > 5
    assert 0 < sample["machine_cpu_percent"] <= 100
    children[0].kill()
    process.wait()
