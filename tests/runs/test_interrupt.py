"""Signals and the stop file: acknowledged at once, and the work ends where it may."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tunix_rt.errors import Interrupted
from tunix_rt.runs.interrupt import StopRequested, watching


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """SIGINT is ignored where the tests were started in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_between_two_steps_a_signal_is_an_answer_to_the_next_question(
    tmp_path: Path, number: int, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    with (
        watching(tmp_path) as interrupt,
        pytest.raises(Interrupted, match="stopped after step 3") as caught,
        interrupt.at_once("before the first step"),
    ):
        interrupt.hold()
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        interrupt.check("after step 3")
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before
    said = capfd.readouterr().err
    assert said == f"{signal.Signals(number).name} received: stopping after this step; again to stop at once\n"


def test_elsewhere_a_signal_ends_the_work_where_it_is(tmp_path: Path) -> None:
    """Prevents: during prepare nothing happened for 105 s, and then it said that step 0 was saved."""
    with watching(tmp_path) as interrupt:
        with (
            pytest.raises(Interrupted, match="stopped during prepare; it will be done again") as caught,
            interrupt.at_once("during prepare; it will be done again"),
        ):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            except Exception:
                pytest.fail("a library's broad handler swallowed the signal")
        with pytest.raises(Interrupted, match="stopped during evaluate"), interrupt.at_once("during evaluate"):
            pytest.fail("went on")
    assert caught.value.exit_code == 143


def test_work_says_what_it_has_saved_meanwhile(tmp_path: Path) -> None:
    with (
        watching(tmp_path) as interrupt,
        pytest.raises(Interrupted, match="stopped after 4 of 6 answers"),
        interrupt.at_once("before the first answer"),
    ):
        interrupt.release("after 4 of 6 answers")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)


def test_what_came_while_nothing_was_saved_counts_as_soon_as_it_is(tmp_path: Path) -> None:
    with (
        watching(tmp_path) as interrupt,
        pytest.raises(Interrupted, match="after step 9"),
        interrupt.at_once("before the first step"),
    ):
        interrupt.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05)
        interrupt.release("after step 9")


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """What `nohup`, and a sweep that passes Ctrl-C on itself, rely on."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with watching(tmp_path) as interrupt, interrupt.at_once("during prepare"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        assert interrupt.received is None
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def started(body: str) -> Iterator[subprocess.Popen[str]]:
    """A program that watches and does `body`, when that has kept a processor busy for a while; killed at the end."""
    code = f"""
import hashlib, signal
from pathlib import Path
from tunix_rt.runs import interrupt as module
module.PATIENCE = 1.0
signal.signal(signal.SIGINT, signal.default_int_handler)
with module.watching(Path("nowhere")) as interrupt:
    {body}
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            seen = psutil.Process(process.pid)
            before = seen.cpu_times().user
            while seen.cpu_times().user < before + 0.2:
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


BUSY = "print('ready', flush=True); hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)"
"""Minutes in a library that never asks for signals, as the compilation of a large program."""


def test_a_main_thread_that_does_not_come_back_is_no_reason_to_wait(tmp_path: Path) -> None:
    with started(f"with interrupt.at_once('during prepare'): {BUSY}") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline() == "SIGTERM received: stopping; again to stop at once\n"
        assert process.wait(30) == 143
        assert process.stderr.read().startswith("SIGTERM received: stopped during prepare; ")


def test_a_second_signal_ends_at_once_and_an_echo_of_the_first_is_none() -> None:
    """Whatever the kind of the second, and while there is something that is not saved."""
    with started(BUSY) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None and process.stderr.readline().startswith("SIGTERM received")
        process.send_signal(signal.SIGTERM)  # `uv run` passes on what the whole group got
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == "SIGINT received: ended at once; what is saved stays\n"


def test_a_stop_file_stops_once(tmp_path: Path) -> None:
    with watching(tmp_path) as interrupt:
        (tmp_path / "stop").touch()
        with pytest.raises(Interrupted, match="stop found"):
            interrupt.check("after step 3")
        interrupt.check("after step 4")


def test_a_stop_file_may_say_why(tmp_path: Path) -> None:
    with watching(tmp_path) as interrupt:
        (tmp_path / "stop").write_text("pruned: too slow\n")
        with pytest.raises(StopRequested, match=r"stop found \(pruned: too slow\): stopped after step 3") as caught:
            interrupt.check("after step 3")
    assert caught.value.why == "pruned: too slow"
    assert not (tmp_path / "stop").exists()
