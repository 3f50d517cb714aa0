"""The command line: help without imports, one line for a person's mistake, a traceback for ours."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from tunix_rt import __main__ as command_line
from tunix_rt import __version__
from tunix_rt.errors import Interrupted, OutOfMemory


def test_help_lists_every_verb_with_a_line_of_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--help"]) == 0
    shown = capsys.readouterr().out
    commands = "ask diff experiments export gc register reproduce rm rows run runs show traces verify"
    for command in commands.split():
        assert f"\n  {command}" in shown
    assert "+experiment=NAME" in shown


@pytest.mark.parametrize("words", [["run", "--help"], ["+experiment=quickstart", "-h"], ["-m", "seed=0,1", "--help"]])
def test_help_of_a_run_is_a_page_that_says_where_every_key_is_explained(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: 150 lines of YAML after a second."""
    assert command_line.main(words) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 50
    assert "python -m tunix_rt options [PREFIX]" in shown
    assert "  backend=jax | torch | tunix\n" in shown
    assert "learning_rate" not in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tunix_rt {__version__}\n"


def test_experiments_are_listed_with_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["experiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("quickstart"))
    assert "90 s on 2 CPU cores" in line
    assert "multiply two-digit numbers" in line


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (OutOfMemory("lower it"), 4, "error: lower it\n"),
        (Interrupted("stopped", 143), 143, "error: stopped\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (PermissionError(errno.EACCES, "denied", "runs"), 3, "error: runs: permission denied\n"),
        (OSError(errno.ENOSPC, "full", "a.json"), 3, "error: the disk is full while writing a.json"),
        (ValueError("ours"), 1, "this is a bug in tunix_rt"),
        (OSError(errno.EIO, "broken"), 1, "this is a bug in tunix_rt"),
        (OSError(errno.EDQUOT, "quota", "a.json"), 3, "error: the disk is full while writing a.json"),
        (OSError(errno.EFBIG, "large", "a.json"), 3, "error: the disk is full while writing a.json"),
        (OSError(errno.EROFS, "read-only", "runs/x"), 3, "error: runs/x: the file system is read-only"),
        (OSError(errno.EIO, "broken", "runs/x"), 3, "error: runs/x: the disk does not answer"),
        (FileNotFoundError(errno.ENOENT, "none", "traces/test.jsonl"), 3, "error: traces/test.jsonl: no such file"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/t']"), 3, "set TMPDIR"),
        (RecursionError("ours"), 1, "this is a bug in tunix_rt"),
    ],
)
def test_how_it_ends(
    error: BaseException,
    code: int,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(words: Sequence[str]) -> Any:
        raise error

    monkeypatch.setattr(command_line, "dispatch", fails)
    assert command_line.main(["x"]) == code
    shown = capsys.readouterr().err
    assert expected in shown
    assert ("Traceback" in shown) == (code == 1)


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    """As `… | head` does: the pipe is closed before anything is written."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "tunix_rt", "--help"]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writes)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_broken_pipe_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(words: Sequence[str]) -> Any:
        raise BrokenPipeError(errno.EPIPE, "some child is gone")

    monkeypatch.setattr(command_line, "dispatch", fails)
    assert command_line.main([]) == 1
    assert "some child is gone" in capsys.readouterr().err
