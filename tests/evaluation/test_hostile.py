"""Whatever a model writes is judged at once, or called too long; nothing hangs, nothing crashes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.evaluation.scorers import scorer
from tunix_rt.evaluation.child import Child
from tunix_rt.evaluation.extract import CANDIDATES, extract
from tunix_rt.evaluation.plain import LONGEST
from tunix_rt.evaluation.scorer import TOO_LONG, Question
from tunix_rt.traces.prediction import Prediction

LONG = 250_000
PIECES = [
    "9", "1,000", "1234 ", "{", "(", "\\boxed{", "\\boxed{1}", "#### 5\n", "#", "-+", "1=1=", "x=", "½", "\0", "apple ",
    "answer: ", "1,", " ", ".", "$", "\\frac{1}{2}", "9^", "1/", "*", "\n", "one and ", "1/3 ", "a", "'", "1:", "5% ",
]  # fmt: skip
PLAIN = ("exact", "number", "choice", "set", "text")


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Processor time, which another program on the machine does not lengthen."""
    begun = time.process_time()
    function(*arguments)
    return time.process_time() - begun


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_text_takes_time_in_proportion(piece: str, predict: Callable[..., Prediction]) -> None:
    """Prevents: 40 seconds for a completion of 1 MB, a reference that is read again for every number in it."""
    whole = piece * (LONG // len(piece))
    said = predict("a", None, completion=whole)
    for kind in PLAIN:
        judge = scorer(kind)
        assert seconds(judge.match, whole, Question("5")) < 1
        assert seconds(judge.match, whole[: LONGEST - 1], Question("Paris")) < 1
        assert seconds(judge.contains, whole, Question("31/7")) < 1
    for marker in CANDIDATES:
        assert seconds(extract, said, (marker,), scorer("number")) < 1


def test_a_number_that_is_too_long_says_so() -> None:
    for kind in ("number", "set", "math"):
        assert scorer(kind).match("9" * LONG, Question("9")).reason == TOO_LONG
    for text in ("9" * 1500, "1e999999999", "1/" + "3" * 1500, "1,000" * 300, "2^99999999", "9**9**9"):
        assert not scorer("number").match(text, Question("9")).equal


@pytest.mark.parametrize(
    "formula", ["9**9**9", "9^{9^9}", "2^{99999999}", "10000!", "((9!)!)!", "(" * 90 + "1" + ")" * 90]
)
def test_what_would_take_for_ever_is_not_tried(formula: str) -> None:
    math = scorer("math")
    assert seconds(math.match, formula, Question("x+1")) < 0.1
    assert math.match(formula, Question("x+1")).reason == TOO_LONG


def test_a_formula_has_its_time_and_the_next_one_is_judged() -> None:
    assert scorer("math", max_seconds=0.001).match(r"\sqrt{x^2+2x+1}+1", Question("x+3")).reason == TOO_LONG
    assert scorer("math").match(r"(x+1)^2", Question("x^2+2x+1")).reason == "same formula"


CHILD = """
import time
from tunix_rt.evaluation.child import serve
def respond(request):
    if request["do"] == "eat":
        return {"size": len(bytearray(request["size"]))}
    if request["do"] == "die":
        raise SystemExit
    time.sleep(request.get("seconds", 0))
    print("this is no answer")
    return {"done": True}
serve(respond, 2**30)
"""


def test_a_child_is_bounded_and_outlives_what_it_is_asked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = Child("some_child")
    try:
        assert child.ask({"do": "work"}, 5) == {"done": True}
        assert child.ask({"do": "eat", "size": 2**32}, 5) == {"error": "MemoryError"}
        assert child.ask({"do": "work", "seconds": 60}, 0.2) is None
        assert child.ask({"do": "die"}, 5) is None
        assert child.ask({"do": "work"}, 5) == {"done": True}
    finally:
        child.stop()


LEFT_ALONE = """
import sys
from tunix_rt.evaluation.child import Child
child = Child("some_child")
child.wait()
print(child._process.pid, flush=True)
child.ask({"do": "work", "seconds": 600}, float(sys.argv[1]))
"""


def test_a_child_that_is_left_alone_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: a process that computes a formula for ever after training was killed."""
    (tmp_path / "some_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", LEFT_ALONE, "0.5"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.2)
    parent.kill()
    parent.communicate()
    assert child.is_running()
    psutil.wait_procs([child], timeout=20)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_does_not_cost_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = Child("some_child")
    child.wait()
    try:
        assert child._process is not None
        for stop in (signal.SIGINT, signal.SIGTERM):
            child._process.send_signal(stop)
        assert child.ask_each([{"do": "work"}, {"do": "work", "seconds": 60}, {"do": "work"}], 1) == [
            *({"done": True}, None, {"done": True})
        ]
    finally:
        child.stop()
