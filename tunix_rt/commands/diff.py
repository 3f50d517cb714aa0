"""Two runs in five lines: what was changed, what came of it, whether that is beyond chance; --all shows every value.

`--all`: config, data, code, environment, results; only what differs, and how many values are equal. `compare` says
more about the verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt import hints
from tunix_rt.commands import Parser
from tunix_rt.files import to_json
from tunix_rt.terminal import cut, out, table


def main(arguments: Sequence[str]) -> int:
    """Print the differences of two runs; --json prints values of more than 60 characters in full."""
    parser = Parser("diff", __doc__, "--json", "--root")
    parser.add_argument("left", help="a run: a name, a prefix or `last`")
    parser.add_argument("right", help="another one")
    parser.add_argument("--all", action="store_true", help="also every value that differs")
    chosen = parser.parse(arguments)

    from tunix_rt.comparison.summary import summary
    from tunix_rt.runs.diff import side_by_side
    from tunix_rt.runs.folder import find_run

    left, right = (find_run(chosen.root, word) for word in (chosen.left, chosen.right))
    sections = side_by_side(left, right)
    lines = summary(left, right, sections)
    if chosen.json:
        shown = {s.name: {"equal": s.equal, "different": s.different} for s in sections}
        out(to_json({"left": left.name, "right": right.name, "summary": lines, **shown}))
        return 0
    for name, text in lines.items():
        out(f"{name:8}  {text}")
    if not chosen.all:
        out(f"\nevery value: {hints.tunix_rt('diff', chosen.left, chosen.right, '--all')}")
        return 0
    out()
    for section in sections:
        if section.different:
            rows = [(key, cut(str(a), 60), cut(str(b), 60)) for key, (a, b) in section.different.items()]
            table(section.name, ("", left.name, right.name), rows)
    for section in sections:
        out(f"{section.name}: {section.equal} values equal{'' if section.different else ', nothing differs'}")
    return 0
