"""Ask the trained model of a run a question; its steps and answer stream into the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tunix_rt.commands import Parser


def main(arguments: Sequence[str]) -> int:
    """Answer one question, or every line typed at a prompt."""
    parser = Parser("ask", __doc__, "run", "--root")
    parser.add_argument("question", nargs="?", help="without one: a prompt line (end it with Ctrl-D)")
    chosen = parser.parse(arguments)

    from tunix_rt.experiment import answerer

    model = answerer(chosen.run)
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
