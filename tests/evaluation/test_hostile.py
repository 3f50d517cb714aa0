"""Whatever a model writes is judged at once, or called too long; nothing hangs, nothing crashes."""

from __future__ import annotations

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


def in_proportion(of_text: Callable[[Any], Any], whole: Any, tenth: Any) -> bool:
    """Whether the whole takes at most 30 times as long as a tenth of it; with the square of the length it is 100."""
    return seconds(of_text, whole) < 0.2 + 30 * seconds(of_text, tenth)


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_text_takes_time_in_proportion(piece: str, predict: Callable[..., Prediction]) -> None:
    """Prevents: 40 seconds for a completion of 1 MB, a reference that is read again for every number in it."""
    whole = piece * (LONG // len(piece))
    tenth = piece * (LONG // len(piece) // 10)
    said, tenth_said = (predict("a", None, completion=text) for text in (whole, tenth))
    for kind in PLAIN:
        judge = scorer(kind)
        assert in_proportion(lambda text, judge=judge: judge.match(text, Question("5")), whole, tenth)
        assert seconds(judge.match, whole[: LONGEST - 1], Question("Paris")) < 1
        assert in_proportion(lambda text, judge=judge: judge.contains(text, Question("31/7")), whole, tenth)
    for marker in CANDIDATES:
        assert in_proportion(
            lambda predicted, marker=marker: extract(predicted, (marker,), scorer("number")), said, tenth_said
        )


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
import os
import time
from tunix_rt.evaluation.child import serve
def respond(request):
    if request["do"] == "eat":
        return {"size": len(bytearray(request["size"]))}
    if request["do"] == "die":
        raise SystemExit
    if request["do"] == "compute":
        return {"number": 9**9**9}
    if request["do"] == "fork":
        other = os.fork()
        if not other:
            time.sleep(600)
        return {"pid": other}
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


def test_what_a_child_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: a process that a scorer forked is there for ever, whether its answer came in time or the child died."""
    (tmp_path / "some_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    child = Child("some_child")
    try:
        first = _forked(child)
        assert child.ask({"do": "work", "seconds": 60}, 0.1) is None
        second = _forked(child)
        assert child.ask({"do": "die"}, 5) is None
        third = _forked(child)
    finally:
        child.stop()
    _ended(first, second, third)


LEFT_ALONE = """
from tunix_rt.evaluation.child import Child
child = Child("some_child")
child.wait()
print(child._process.pid, child.ask({"do": "fork"}, 60)["pid"], flush=True)
child.ask({"do": "compute"}, 600)
"""


def test_a_child_that_is_left_alone_ends_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents: a process that computes for ever, and no handler of a signal interrupts it, after training died."""
    (tmp_path / "some_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", LEFT_ALONE], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child, forked = map(psutil.Process, map(int, parent.stdout.readline().split()))
    time.sleep(0.2)
    parent.kill()
    parent.communicate()
    _ended(child, forked)


def _forked(child: Child) -> psutil.Process:
    answer = child.ask({"do": "fork"}, 20)
    assert answer is not None
    return psutil.Process(int(answer["pid"]))


def _ended(*processes: psutil.Process) -> None:
    psutil.wait_procs(processes, timeout=10)
    assert all(not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in processes)
