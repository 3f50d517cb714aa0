"""Is one run better than another? One sentence, then what it rests on: intervals, tests, slices, flips.

`compare A B` pairs B with A by prompt. `compare A1 A2 A3 --with B1 B2 B3` compares two settings, each with several
seeds; so does `compare SWEEP` (or runs, or an experiment) if all its runs are of two settings that differ in more than
seeds. What was asked of other data or judged by other rules is refused.

Where metrics.json has a rate or mean, `--metric` takes its name: accuracy, stop_rate, completion_tokens,
steps.all_steps_right, scores.NAME, pass_at.K; and any number in items.jsonl, by its dotted key.
"""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Sequence

from tunix_rt.commands import Parser
from tunix_rt.terminal import out


def main(arguments: Sequence[str]) -> int:
    """Compare two sides."""
    parser = Parser("compare", __doc__, "--json", "--root")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run, a sweep, or an experiment (all its runs)")
    parser.add_argument("--with", dest="others", nargs="+", metavar="RUN", default=[], help="the other side")
    parser.add_argument("--metric", default="accuracy", help="what is compared (default: accuracy)")
    help = "the smallest difference that matters (0.01: one point); tests equivalence and non-inferiority"
    parser.add_argument("--margin", type=_margin, metavar="M", help=help)
    help = "compare runs that were asked different questions on those that they have in common"
    parser.add_argument("--common", action="store_true", help=help)
    help = "show N harmful and N beneficial flips with their texts (default: 2; --json has all)"
    parser.add_argument("--flips", type=int, default=2, metavar="N", help=help)
    chosen = parser.parse(arguments)

    from tunix_rt import files
    from tunix_rt.comparison import show
    from tunix_rt.comparison.compare import compared
    from tunix_rt.comparison.sides import sides_of

    sides = sides_of(chosen.root, chosen.runs, chosen.others)
    found = compared(sides, chosen.metric, chosen.margin, chosen.common)
    if chosen.json:
        out(files.to_json(show.to_json(found)))
    else:
        show.show(found, chosen.flips)
    return 0


def _margin(word: str) -> float:
    try:
        margin = float(word)
    except ValueError:
        margin = math.nan
    if not (0 < margin < math.inf):
        raise ArgumentTypeError(f"{word!r}: expected a number above 0")
    return margin
