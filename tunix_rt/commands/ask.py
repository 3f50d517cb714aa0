"""Ask the trained model of a run a question; its steps and answer stream into the terminal.

Without a question, a conversation: each line is asked after what was said before, where the run's format can show that;
`/new` begins anew, Ctrl-D ends it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tunix_rt.commands import Parser

NEW = "/new"


def main(arguments: Sequence[str]) -> int:
    """Answer one question, or every line typed at a prompt."""
    parser = Parser("ask", __doc__, "run", "--root")
    parser.add_argument("question", nargs="?", help=f"without one: a conversation ({NEW} begins anew, Ctrl-D ends it)")
    chosen = parser.parse(arguments)

    from tunix_rt.experiment import answerer
    from tunix_rt.inference.conversation import Conversation

    talk = Conversation(answerer(chosen.run), sys.stdout)
    if chosen.question is not None:
        talk.ask(chosen.question)
        return 0
    talk.explain()
    for line in _typed():
        if line == NEW:
            talk.begin_anew()
        else:
            talk.try_to_ask(line)
    return 0


def _typed() -> Iterator[str]:
    while True:
        try:
            line = input("? ").strip()
        except EOFError:
            return
        if line:
            yield line
