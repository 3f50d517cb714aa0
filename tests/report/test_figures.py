"""Pictures of a run, from its files alone."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from math import exp
from pathlib import Path
from typing import Any

import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from tunix_rt.config.load import check_section
from tunix_rt.config.results import EvaluationConfig
from tunix_rt.config.scorers import ScorerConfig
from tunix_rt.evaluation.score import Score, score
from tunix_rt.files import write_json, write_jsonl
from tunix_rt.report.drawing import BLUE, GREY, WINDOW, smooth
from tunix_rt.report.figures import draw
from tunix_rt.traces.prediction import Prediction
from tunix_rt.traces.trace import Trace


def scored(num_right: int, stops: bool = True, samples: int = 1) -> Score:
    """Sixty prompts, the first `num_right` answered rightly, with two steps each."""
    number = check_section("scorer", ScorerConfig, {"kind": "number"})
    rules = EvaluationConfig(scorers=(number,), extract=("format",), steps="arithmetic", slices=(), pass_at=())
    traces = {str(i): Trace(str(i), f"{i}+1=", (), str(i + 1), {}) for i in range(60)}
    predictions = [
        Prediction(
            id=str(i),
            sample=sample,
            prompt=f"{i}+1=",
            reference=str(i + 1),
            completion="",
            steps=("1+1=2", f"{i}+1={i + 1}" if i < num_right else f"{i}+1={i}"),
            answer=str(i + 1) if i < num_right else str(i),
            finish_reason="stop" if stops else "length",
            error=None,
            num_prompt_tokens=4,
            num_new_tokens=20 + i % 7 + (0 if i < num_right else 12),
            logprobs=(),
        )
        for i in range(60)
        for sample in range(samples)
    ]
    return score(predictions, traces, rules)


def write_logs(folder: Path) -> None:
    """Training's log, as the loop writes it."""
    steps = range(1, 301)
    lines: list[dict[str, Any]] = [
        {"step": s, "train/loss": 3 * exp(-s / 40) + 0.01 * (1 + s % 3), "train/learning_rate": 1e-3 * (1 - s / 300)}
        for s in steps
    ]
    lines += [{"step": s, "eval/loss": 3 * exp(-s / 45) + 0.03, "eval/accuracy": s / 300} for s in (100, 200, 300)]
    write_jsonl(folder / "metrics.jsonl", lines)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with everything that can be drawn."""
    folder, after = tmp_path / "run", scored(52, samples=3)
    folder.mkdir()
    write_logs(folder)
    write_jsonl(folder / "items.jsonl", after.items)
    write_json(folder / "metrics.json", after.metrics)
    write_json(folder / "baseline_metrics.json", scored(3, samples=3).metrics)
    return folder


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def size(picture: Path) -> tuple[int, int]:
    """Width and height, from the PNG's header."""
    head = picture.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_draws_all_there_is(run: Path) -> None:
    written = draw(run)
    assert names(written) == ["loss.png", "accuracy.png", "lengths.png", "steps.png"]
    assert all(path.parent == run / "figures" for path in written)
    assert {size(path)[0] for path in written} == {800}
    assert sorted(path.name for path in (run / "figures").iterdir()) == sorted(names(written))


def test_draws_only_what_has_data(tmp_path: Path) -> None:
    """Prevents: a failing report where a run has no training of its own, no steps or only failures."""
    assert draw(tmp_path) == []
    result = scored(0, stops=False)
    del result.metrics["steps"]
    write_json(tmp_path / "metrics.json", result.metrics)
    write_jsonl(tmp_path / "items.jsonl", [item | {"finish_reason": "error"} for item in result.items])
    assert names(draw(tmp_path)) == ["accuracy.png"]
    write_jsonl(tmp_path / "metrics.jsonl", [{"step": 1, "train/loss": 0.0, "train/learning_rate": 0.0}])
    assert names(draw(tmp_path)) == ["loss.png", "accuracy.png"]


def test_bars_before_and_after_training_are_told_apart(run: Path) -> None:
    """Prevents: bars of which nobody can say whose they are; without a baseline the legend still names them."""

    def colours(path: Path) -> list[bool]:
        picture = image.imread(path)[..., :3]
        return [bool((abs(picture - to_rgb(one)) < 0.01).all(-1).sum() > 5_000) for one in (BLUE, GREY)]

    draw(run)
    assert colours(run / "figures" / "accuracy.png") == [True, True]
    (run / "baseline_metrics.json").unlink()
    draw(run)
    assert colours(run / "figures" / "accuracy.png") == [True, False]


def test_one_length_can_be_drawn(tmp_path: Path) -> None:
    """Prevents: a histogram without width where every completion is equally long, as the quickstart's are."""
    items = [item | {"num_new_tokens": 63, "correct": True} for item in scored(60).items]
    write_jsonl(tmp_path / "items.jsonl", items)
    assert names(draw(tmp_path)) == ["lengths.png"]


def test_loss_of_a_sibling_that_did_the_training(run: Path) -> None:
    """Prevents: no loss curve where only the evaluation was new."""
    sibling = run.parent / "sibling"
    write_json(sibling / "stages.json", {"train": {"folder": "../run"}})
    assert names(draw(sibling)) == ["loss.png"]


@pytest.mark.slow
def test_same_files_same_bytes_also_in_threads(run: Path) -> None:
    """Prevents: pictures that differ between runs, or runs in threads that draw into each other's."""
    first = {path.name: path.read_bytes() for path in draw(run)}
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(draw, [run, run]))
    for written in again:
        assert {path.name: path.read_bytes() for path in written} == first


def test_no_window_and_no_global_state(run: Path) -> None:
    """Prevents: pyplot, which opens windows and keeps figures. In a process of its own: tests import it elsewhere."""
    code = (
        f"import sys; from pathlib import Path; from tunix_rt.report.figures import draw; draw(Path({str(run)!r})); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_smoothing_has_no_lag() -> None:
    """Prevents: a smoothed line that lies far above a falling curve, from which training looks worse than it is."""
    falling = [3 * exp(-step / 40) for step in range(300)]
    means = smooth(falling)
    middle = falling[WINDOW // 2 : WINDOW // 2 + len(means)]
    assert len(means) == 300 - WINDOW + 1
    assert all(abs(mean / value - 1) < 0.02 for mean, value in zip(means, middle, strict=True))
    straight = [5.0 - step / 100 for step in range(60)]
    assert smooth(straight) == pytest.approx(straight[WINDOW // 2 : -(WINDOW // 2)])


def test_a_short_curve_is_not_smoothed() -> None:
    assert smooth([1.0] * (2 * WINDOW - 1)) == []
    assert smooth([]) == []
