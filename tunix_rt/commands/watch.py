"""Follow a run, or a sweep, of any process until it ends: loss curve, step, rate, time left, last samples.

Ctrl-C leaves the run alone. Into a pipe: a line per change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.commands import Parser
from tunix_rt.errors import RunError
from tunix_rt.styled import live
from tunix_rt.terminal import out

if TYPE_CHECKING:
    from tunix_rt.report.live import View
    from tunix_rt.runs.folder import RunFolder
    from tunix_rt.runs.sweep import SweepFolder

EVERY = 1.0
"""Seconds between two looks."""


def main(arguments: Sequence[str]) -> int:
    """Show what a run does; RunError (exit code 4) if it did not finish."""
    parser = Parser("watch", __doc__, "--root")
    parser.add_argument("run", nargs="?", default="last", help="a run or a sweep: a name, a prefix or `last` (default)")
    chosen = parser.parse(arguments)
    with suppress(KeyboardInterrupt):
        return watch(find(chosen.root, chosen.run))
    out("not watched any more; it goes on")
    return 130


def find(root: Path, word: str) -> RunFolder | SweepFolder:
    """The run or the sweep that is meant. Raises InputError."""
    from tunix_rt.runs.folder import find_run
    from tunix_rt.runs.sweep import SweepFolder

    sweeps = [SweepFolder(file.parent) for file in root.glob("*/sweep-*/sweep.json")]
    meant = [sweep for sweep in sweeps if word in (sweep.name, sweep.path.name) or Path(word) == sweep.path]
    close = [sweep for sweep in sweeps if "sweep-" in word and sweep.name.startswith(word)]
    found = meant or close
    return found[0] if len(found) == 1 else find_run(root, word)


def watch(folder: RunFolder | SweepFolder) -> int:
    """Look until it has ended. Raises RunError."""
    from tunix_rt.report.live import RunView, SweepView
    from tunix_rt.runs.folder import RunFolder

    view = RunView(folder) if isinstance(folder, RunFolder) else SweepView(folder)
    if not view.look():
        with live() as show:
            show(view.screen, view.change)
            while not _ended(view):
                show(view.screen, view.change)
            show(view.screen, view.change)
    if view.failure is not None:
        raise RunError(view.failure)
    out(view.end)
    return 0


def _ended(view: View) -> bool:
    time.sleep(EVERY)
    return view.look()
