"""The logs are read while another process writes them, so every byte may be the last one seen."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunix_rt.runs.folder import RunFolder
from tunix_rt.tracking.tail import METRICS, SYSTEM, TIMINGS, Point, RunLogs

LINES = {
    METRICS: [{"step": step, "train/loss": step / 7, "train/note": "text", "train/flag": True} for step in range(1, 9)],
    TIMINGS: [{"step": step, "time": 1000.0 + step, "tokens_per_second": 5.0 * step} for step in range(1, 9)],
    SYSTEM: [{"step": 3 * step, "time": 999.5 + step, "process_memory_megabytes": 80.0} for step in range(4)],
}
TEXT = {name: "".join(json.dumps(line) + "\n" for line in lines).encode() for name, lines in LINES.items()}


def everything() -> list[Point]:
    metrics = [Point("train/loss", step, 1_000_000 + 1000 * step, step / 7) for step in range(1, 9)]
    timings = [Point("timings/tokens_per_second", step, 1_000_000 + 1000 * step, 5.0 * step) for step in range(1, 9)]
    system = [Point("system/process_memory_megabytes", 3 * step, 999_500 + 1000 * step, 80.0) for step in range(4)]
    return metrics + timings + system


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(LINES)), st.integers(1, 200), st.booleans()), max_size=40))
def test_files_that_grow_in_any_pieces_give_each_point_once(
    tmp_path: Path, pieces: list[tuple[str, int, bool]]
) -> None:
    """`True` in a piece: the sync process is killed and reads on from the offsets it had kept."""
    left = dict(TEXT)
    for name in LINES:
        (tmp_path / name).write_bytes(b"")
    logs, points = RunLogs(RunFolder(tmp_path)), []
    sent: dict[str, int] = {}
    rest = [(name, len(text), False) for name, text in TEXT.items()]
    for name, size, killed in pieces + rest:
        with (tmp_path / name).open("ab") as file:
            file.write(left[name][:size])
        left[name] = left[name][size:]
        if killed:
            logs = RunLogs(RunFolder(tmp_path))
        for most in (3, 5000):
            new, sent = logs.new(sent, ended=False, most=most)
            points += new
    assert sorted(points) == sorted(everything())


def test_offsets_that_are_not_kept_give_the_same_points_again(tmp_path: Path) -> None:
    for name, text in TEXT.items():
        (tmp_path / name).write_bytes(text)
    logs = RunLogs(RunFolder(tmp_path))
    assert logs.new({}, ended=False) == logs.new({}, ended=False)


def test_a_line_without_its_time_waits_and_then_takes_the_next_one(tmp_path: Path) -> None:
    """A kill between the two files leaves a step whose time never comes: it may not hold back the rest."""
    (tmp_path / METRICS).write_text('{"step": 1, "a": 1.0}\n{"step": 2, "a": 2.0}\n')
    logs = RunLogs(RunFolder(tmp_path))
    assert logs.new({}, ended=False)[0] == []
    (tmp_path / TIMINGS).write_text('{"step": 2, "time": 7.0}\n')
    assert logs.new({}, ended=False)[0] == [Point("a", 1, 7000, 1.0), Point("a", 2, 7000, 2.0)]
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 3, "a": 3.0}\n')
    assert len(logs.new({}, ended=False)[0]) == 2
    assert logs.new({}, ended=True)[0][2:] == [Point("a", 3, 7000, 3.0)]


@pytest.mark.parametrize("damage", ["\0\0\n", "[1]\n", '{"no": "step"}\n', '{"step": 1, "a": \n', "\n", "\xff\n"])
def test_a_damaged_line_is_passed_over(tmp_path: Path, damage: str) -> None:
    """A kill may tear a line, and the next process ends it before it writes its own."""
    (tmp_path / TIMINGS).write_bytes(damage.encode("latin-1") + b'{"step": 1, "time": 2.0, "x": 3.0}\n')
    assert RunLogs(RunFolder(tmp_path)).new({}, ended=False)[0] == [Point("timings/x", 1, 2000, 3.0)]


def test_a_file_that_was_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    (tmp_path / TIMINGS).write_text('{"step": 1, "time": 2.0, "x": 3.0}\n')
    assert len(RunLogs(RunFolder(tmp_path)).new({TIMINGS: 10_000}, ended=False)[0]) == 1
