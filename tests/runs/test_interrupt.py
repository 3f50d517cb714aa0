"""Signals and the stop file are seen between steps."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tunix_rt.errors import Interrupted
from tunix_rt.runs.interrupt import StopRequested, watching


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_an_answer_to_the_next_question(tmp_path: Path, number: int, code: int) -> None:
    before = signal.getsignal(number)
    with watching(tmp_path) as interrupt:
        interrupt.check("never")
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match="stopped after step 3") as caught:
            interrupt.check("after step 3")
    assert caught.value.exit_code == code
    assert signal.getsignal(number) is before


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
