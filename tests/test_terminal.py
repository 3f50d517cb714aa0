"""What a person sees: rates that mean something, tables that fit, text that cannot steer the terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest

from tunix_rt import styled, terminal
from tunix_rt.files import to_json

Lines = list[str]


@pytest.fixture
def at_80_columns(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], Lines]:
    """What a function prints to a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")

    def shown(prints: Callable[[], None]) -> Lines:
        controller, end = pty.openpty()
        with os.fdopen(end, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            prints()
        text = b""
        with os.fdopen(controller, "rb", buffering=0) as reader:
            while chunk := _read(reader.fileno()):
                text += chunk
        return text.decode("utf-8").replace("\r\n", "\n").splitlines()

    return shown


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other end is closed
        return b""


COLUMNS = ("run", "started", "state", "backend", "accuracy", "reason")


def test_an_identity_stays_in_one_piece(at_80_columns: Callable[..., Lines]) -> None:
    """Prevents: `quickstart/35637` ⏎ `8166ae7`, for the sake of a column without a single value."""
    name = "smollm2_arithmetic_long/356378166ae7"
    row = (name, "2026-11-28 22:03", "interrupted", "torch", "100.0 %", "")
    lines = at_80_columns(lambda: terminal.table("", COLUMNS, [row], right=(4,)))
    assert "reason" not in lines[0]
    assert all(len(line) <= 80 for line in lines)
    (line,) = (line for line in lines if name in line)
    assert "100.0 %" in line
    assert [line for line in lines if line.startswith("  ")] == []


def test_what_does_not_fit_is_cut_then_left_out_and_said(at_80_columns: Callable[..., Lines]) -> None:
    row = (f"{'e' * 50}/356378166ae7", "2026-11-28 22:03", "finished", "jax", "100.0 %", "no space left on the device")
    lines = at_80_columns(lambda: terminal.table("", COLUMNS, [row], right=(4,)))
    assert lines[0].split() == ["run", "accuracy"]
    assert lines[2].split() == [row[0], "100.0", "%"]
    assert lines[3] == " not shown for want of room: started, state, backend, reason"


def test_where_nothing_may_be_cut_each_row_is_lines(at_80_columns: Callable[..., Lines]) -> None:
    """Prevents: hashes that cannot be copied."""
    row = ("data/multiply_2x2", "train", "0123456789abcdef…", 32 * "a", "0011aabb" * 3)
    columns = ("file", "split", "sha256", "md5", "digest")
    lines = at_80_columns(lambda: terminal.table("", columns, [row], whole=range(5)))
    assert [line.split() for line in lines[:5]] == [list(pair) for pair in zip(columns, row, strict=True)]


def test_a_command_to_paste_is_one_line(at_80_columns: Callable[..., Lines]) -> None:
    command = f"uv run python -m tunix_rt ask quickstart/0123456789ab '{'12 * 12 = ' * 10}'"
    lines = at_80_columns(lambda: terminal.table("", (), [("accuracy", "1"), ("ask it", command)]))
    assert lines[:2] == [" accuracy  1", f" ask it    {command}"]


def test_a_pipe_gets_everything_and_no_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("e/1", "x" * 200, "中文"), ("e/2", "", "z")]
    terminal.table("title", ("run", "long", "more"), rows)
    shown = capsys.readouterr().out
    assert all(line == line.rstrip() for line in shown.splitlines())
    assert "x" * 200 in shown
    lines = shown.splitlines()
    assert lines[1].index("more") == lines[3].index("中") == lines[4].index("z")


def test_data_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: a title set, a screen cleared by a prompt of a data file."""
    hostile = "\x1b]0;owned\x07\x1b[2J \x9b2J \u202e\x7f\U000e0001 ok"
    for prints in (
        lambda: terminal.out(hostile),
        lambda: terminal.say(hostile),
        lambda: terminal.warn(hostile),
        lambda: terminal.table(hostile, (hostile,), [(hostile,)]),
        lambda: terminal.table("", (), [("key", hostile)]),
        lambda: styled.coloured([(hostile, "bold")]),
        lambda: styled.markdown(hostile),
        lambda: terminal.out(to_json({hostile: hostile})),
    ):
        prints()
        captured = capsys.readouterr()
        shown = captured.out + captured.err
        assert "ok" in shown
        assert all(character.isprintable() or character == "\n" for character in shown)


def test_a_tab_is_seen_as_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: code whose tabs look like blanks, where the text is shown to be checked."""
    styled.coloured([("a\tb", "bold"), ("\n", "dim")])
    assert capsys.readouterr().out == "a\tb\n\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    styled.coloured([("a\tb", "bold")])
    assert "a\\tb" in capsys.readouterr().out


def test_escapes_leave_json_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "\x9b2J \u202e \x7f \U000e0001 \ttab\nline ünï 中"}
    terminal.out(to_json(value))
    assert json.loads(capsys.readouterr().out) == value


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


def test_no_time_left_from_a_first_step_that_compiles(clock: Clock) -> None:
    """Prevents: `1/60 steps, 10.0 s each, 592 s left`, of 4 seconds."""
    bar = terminal.Progress("train", 60, "steps", 0)
    paces = []
    for seconds in (10.0, *[0.5] * 10):
        clock.now += seconds
        bar.advance()
        paces.append(bar.pace())
    assert paces[:5] == [""] * 5
    assert paces[5] == "2.0/s, 27 s left"


def test_answers_of_one_batch_come_at_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents: `1/200 answers, 14.7 s each, 2931 s left`, and `5720.1/s` after 12.7 s."""
    bar = terminal.Progress("predict", 200, "answers", 0)
    for batch, seconds in enumerate((15.0, 5.0, 5.0, 5.0)):
        clock.now += seconds
        for _ in range(50):
            bar.advance()
            assert bar.pace() == "" if batch < 2 else bar.pace().startswith("10.0/s")
    assert bar.pace() == "10.0/s"
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["predict: 1/200 answers", "predict: 101/200 answers, 10.0/s, 10 s left"]


def test_what_was_there_before_is_no_part_of_the_rate(clock: Clock) -> None:
    bar = terminal.Progress("train", 1600, "steps", 1500)
    for _ in range(6):
        clock.now += 1.0
        bar.advance()
    assert bar.pace() == "1.0/s, 94 s left"


def test_labelled_lines_wrap_beside_their_label(
    at_80_columns: Callable[[Callable[[], None]], Lines], capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: an answer of 200 characters that runs over its label; in a pipe, colours or trailing blanks."""
    rows = [
        styled.Line("completion", [("ab " * 60, "green"), ("\x1b[2J", "")], "✓"),
        styled.Line("answer", [("7", "")]),
    ]
    shown = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in at_80_columns(lambda: styled.lines(rows))]
    assert [line[:16] for line in shown[:3]] == ["  completion ✓ ab"[:16], " " * 15 + "a", " " * 15 + "a"]
    assert all(len(line) <= 80 for line in shown) and shown[-1].strip() == "answer       7"
    styled.lines(rows)
    assert capsys.readouterr().out == f"  completion  ✓ {'ab ' * 60}\\u001b[2J\n  answer        7\n"


def test_a_renewed_screen_in_a_terminal_and_its_changes_in_a_pipe(
    at_80_columns: Callable[[Callable[[], None]], Lines], capsys: pytest.CaptureFixture[str]
) -> None:
    def shows() -> None:
        with styled.live() as show:
            for number in (1, 2):
                show(partial(lambda number, width: [f"screen {number} of {width}"], number), lambda: ["a change  "])

    shown = "\n".join(at_80_columns(shows))
    assert "screen 1 of 79" in shown and "screen 2 of 79" in shown and "a change" not in shown
    shows()
    assert capsys.readouterr().out == "a change\na change\n"


def test_markdown_is_rendered_for_a_terminal_only(
    at_80_columns: Callable[[Callable[[], None]], Lines], capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: `show` printing the bars of a report's tables, or rendering what a pipe reads."""
    text = "# Report\n\n| a | b |\n|---|---|\n| 1 | \x1b[2J |\n\n```\n<think> [a](http://b)\n```"
    shown = "\n".join(at_80_columns(lambda: styled.markdown(text)))
    assert "Report" in shown and "|---|" not in shown and "\x1b[2J" not in shown
    assert "<think> [a](http://b)" in shown, "what a model wrote is shown as it is"
    assert "\x1b]8" not in "\n".join(at_80_columns(lambda: styled.markdown("[a](http://b)")))
    styled.markdown(text)
    assert capsys.readouterr().out == text.replace("\x1b", "\\u001b") + "\n"
