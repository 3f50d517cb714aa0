"""`watch`: what a person sees of a run of another process. The folders are as a run leaves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunix_rt.commands import watch
from tunix_rt.errors import RunError
from tunix_rt.files import append_line, write_json, write_text
from tunix_rt.report.curve import curve
from tunix_rt.report.live import RunView
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.live import SAMPLES, RunWatch
from tunix_rt.runs.sweep import MemberRecord, SweepFolder, key_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of this process that trains."""
    monkeypatch.chdir(tmp_path)
    made = RunFolder(Path("runs/e/0123456789ab"))
    made.path.mkdir(parents=True)
    write_text(made.config, "generation: {split: test, num_return_sequences: 2}\n")
    write_json(made.data, {"splits": {"test": {"count": 10}}})
    made.begin()
    made.note_stage("train")
    append_line(made.path / "sessions.jsonl", {"stage": "train", "first_step": 1, "num_steps": 40})
    return made


def steps(run: RunFolder, first: int, last: int, seconds: float = 0.5) -> None:
    for step in range(first, last + 1):
        append_line(run.metrics_log, {"step": step, "train/loss": 4.0 / step})
        append_line(run.timings_log, {"step": step, "time": 1000.0 + seconds * step})


def test_step_rate_and_time_left(run: RunFolder) -> None:
    view = RunView(run)
    assert not view.look() and view.change() == ["train  0/40 steps"]
    steps(run, 1, 10)
    assert not view.look() and view.change() == ["train  10/40 steps, 2.0/s, 15 s left, loss 0.4000"]
    assert view.change() == [], "nothing has changed"
    assert view.screen(60)[1] == "train  ██████░░░░░░░░░░░░░░░░░░  10/40 steps, 2.0/s, 15 s left, loss 0.4000"


def test_the_last_samples_are_those_of_the_last_evaluation(run: RunFolder) -> None:
    """Prevents: samples of an earlier step, or the same twice after a resumed run evaluated again."""
    for step, right in ((5, False), (10, True), (10, True)):
        append_line(run.metrics_log.with_name(SAMPLES), sample(step, right))
    append_line(run.metrics_log, {"step": 10, "eval/loss": 0.25, "eval/accuracy": 1.0})
    view = RunView(run)
    assert view.change()[1:] == [
        "validation at step 10: loss 0.2500, 100.0 % of 1 samples right",
        "  ✓ '1+1=' → 'at 10'",
    ]


def sample(step: int, right: bool) -> dict[str, object]:
    return {"step": step, "id": "a", "prompt": "1+1=", "completion": f"at {step}", "correct": right}


def test_answers_are_counted_while_it_predicts(run: RunFolder) -> None:
    run.note_stage("predict")
    for number in range(7):
        append_line(run.predictions, {"id": str(number)})
    now = RunWatch(run).look()
    assert (now.stage, now.unit, now.done, now.total) == ("predict", "answers", 7, 20)


def test_a_finished_run_says_so_at_once(run: RunFolder, capsys: Capture) -> None:
    write_json(run.metrics, {"accuracy": {"value": 0.75}})
    run.end("finished")
    assert watch.main([]) == 0
    assert capsys.readouterr().out == "e/0123456789ab: finished, accuracy 75.0 %\n"


def test_a_killed_run_is_said_to_be_killed(run: RunFolder) -> None:
    write_json(run.status_file, run.status() | {"pid": 2**22 + 1})
    with pytest.raises(RunError, match="e/0123456789ab: killed: its process is gone"):
        watch.main(["e"])


def test_ctrl_c_leaves_the_run_alone(run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupted)
    before = run.status_file.read_bytes()
    assert watch.main(["last"]) == 130
    assert capsys.readouterr().out == "train  0/40 steps\nnot watched any more; it goes on\n"
    assert run.status_file.read_bytes() == before


def test_a_sweep_is_a_line_per_member(run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    sweep = SweepFolder(Path("runs/e/sweep-abc").absolute())
    (sweep.path / "members").mkdir(parents=True)
    sweep.begin({"metric": "accuracy", "varying": ["seed"]})
    steps(run, 1, 4)
    sweep.write(MemberRecord(("seed=1",), "running", str(run.path)))
    sweep.write(MemberRecord(("seed=2",), "failed", str(run.path), "no memory"))
    write_json(sweep.request(key_of(["seed=1"])), {"config": "of a member in a process of its own"})

    def end(_: float) -> None:
        write_json(run.metrics, {"accuracy": {"value": 0.5}})
        sweep.write(MemberRecord(("seed=1",), "finished", str(run.path)))
        sweep.end("finished")

    monkeypatch.setattr(watch.time, "sleep", end)
    assert watch.main(["e/sweep-"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "seed=1  train  4/40 steps, loss 1.0000",
        "seed=2  failed: no memory",
    ]


def test_a_curve_is_as_high_as_its_values() -> None:
    """By hand: 3, 2 and 1 on two lines of eight levels are 16, 8 and 0, of which the last is drawn as 1."""
    points = [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert curve(points, 30, height=2) == ["       3 █", "       1 ██▁", f"{'':9}step 1 3"]
    halves = curve([(step, float(step <= 50)) for step in range(1, 101)], 30, height=1)
    assert halves == ["       1 ██████████▁▁▁▁▁▁▁▁▁▁", f"{'':9}step 1           100"]
    assert curve([], 30) == []


def test_a_steep_curve_is_logarithmic() -> None:
    """From 100 by 10 to 1: equal distances."""
    assert curve([(1, 100.0), (2, 10.0), (3, 1.0)], 30, height=2)[:2] == ["     100 █", "       1 ██▁"]
