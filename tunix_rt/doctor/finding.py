"""What a check of the machine says."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tunix_rt.config.schema import ExperimentConfig

State = Literal["works", "broken", "absent"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing, and whether it works."""

    name: str
    state: State
    """`absent`: not there, and not needed by everybody."""
    text: str
    remedy: str = ""
    """What to type, or to do; empty: nothing."""
    stops: bool = False
    """Whether no run works as long as it is so."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is examined."""

    config: ExperimentConfig
    """The declared experiment: its folders and trackers."""
    seconds: float
    """How long a check may wait for a program or a server."""


def installed(package: str) -> bool:
    """Whether a package (its import name) is there, without importing it."""
    return importlib.util.find_spec(package) is not None


def version(distribution: str) -> str | None:
    """The version of a distribution, without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def output(words: Sequence[str], seconds: float, variables: Mapping[str, str] | None = None) -> str:
    """What a program writes to stdout. Raises OSError if there is none, TimeoutError, RuntimeError with its last line.

    One that hangs is killed after `seconds`, one that crashes ends only itself.
    """
    try:
        done = subprocess.run(
            list(words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            env=os.environ | dict(variables or {}),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        ended = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise RuntimeError(lines[-1] if lines else ended)
    return done.stdout


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def writable(path: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself."""
    there = existing(path)
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
