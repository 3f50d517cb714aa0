"""Ask the trained model of a run a question; its steps and answer stream into the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Answer one question, or every line typed at a prompt."""
    parser = argparse.ArgumentParser(prog="tunix_rt ask", description=__doc__)
    parser.add_argument("run", help="a name, a prefix or `last`")
    parser.add_argument("question", nargs="?", help="without one: a prompt line (end it with Ctrl-D)")
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root)")
    chosen = parser.parse_args(list(arguments))

    from tunix_rt.experiment import answerer
    from tunix_rt.runs.folder import find_run

    run = find_run(Path(chosen.root), chosen.run)
    model = answerer(run)
    for question in [chosen.question] if chosen.question else _typed():
        model.answer(question, sys.stdout)
    return 0


def _typed() -> Iterator[str]:
    while True:
        try:
            line = input("? ").strip()
        except EOFError:
            return
        if line:
            yield line
