"""metrics.jsonl: each step once, and a replay that differs is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunix_rt.errors import RunError
from tunix_rt.files import read_jsonl
from tunix_rt.runs.log import MetricsLog


def opened(folder: Path, exact: bool = True) -> MetricsLog:
    return MetricsLog(folder / "metrics.jsonl", folder / "timings.jsonl", exact)


def lines(folder: Path) -> list[dict[str, object]]:
    return [record for _, record in read_jsonl(folder / "metrics.jsonl")]


def test_a_replayed_step_is_written_once_and_must_be_equal(tmp_path: Path) -> None:
    opened(tmp_path).write(1, {"train/loss": 0.5}, {"time": 1.0})
    again = opened(tmp_path)
    again.write(1, {"train/loss": 0.5}, {"time": 2.0})
    again.write(1, {"eval/loss": 0.4}, {"time": 2.0})
    again.write(2, {"train/loss": 0.25}, {"time": 3.0})
    assert lines(tmp_path) == [
        {"step": 1, "train/loss": 0.5},
        {"step": 1, "eval/loss": 0.4},
        {"step": 2, "train/loss": 0.25},
    ]
    assert again.series("train/loss") == [(1, 0.5), (2, 0.25)]
    with pytest.raises(RunError, match=r"step 2 was done again and differs: train/loss was 0\.25, is 0\.26"):
        again.write(2, {"train/loss": 0.26}, {"time": 4.0})


def test_on_another_machine_the_record_stands(tmp_path: Path) -> None:
    opened(tmp_path).write(1, {"train/loss": 0.5}, {"time": 1.0})
    opened(tmp_path, exact=False).write(1, {"train/loss": 0.5000001}, {"time": 2.0})
    assert lines(tmp_path) == [{"step": 1, "train/loss": 0.5}]


def test_a_torn_last_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    """A kill in the middle of a write leaves half a line; the next one must start on its own."""
    opened(tmp_path).write(1, {"train/loss": 0.5}, {"time": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "train/lo')
    log = opened(tmp_path)
    log.write(2, {"train/loss": 0.25}, {"time": 2.0})
    assert opened(tmp_path).series("train/loss") == [(1, 0.5), (2, 0.25)]
