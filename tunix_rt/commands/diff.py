"""Two runs side by side: config, data, code, environment, results; only what differs, and what is equal in a line."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.commands import Parser
from tunix_rt.files import to_json
from tunix_rt.terminal import out, table


def main(arguments: Sequence[str]) -> int:
    """Print the differences of two runs; --json prints values of more than 60 characters in full."""
    parser = Parser("diff", __doc__, "--json", "--root")
    parser.add_argument("left", help="a run: a name, a prefix or `last`")
    parser.add_argument("right", help="another one")
    chosen = parser.parse(arguments)

    from tunix_rt.runs.diff import side_by_side
    from tunix_rt.runs.folder import find_run

    left, right = (find_run(chosen.root, word) for word in (chosen.left, chosen.right))
    sections = side_by_side(left, right)
    if chosen.json:
        shown = {s.name: {"equal": s.equal, "different": s.different} for s in sections}
        out(to_json({"left": left.name, "right": right.name, **shown}))
        return 0
    for section in sections:
        if section.different:
            rows = [(key, _cut(str(a)), _cut(str(b))) for key, (a, b) in section.different.items()]
            table(section.name, ("", left.name, right.name), rows)
    for section in sections:
        out(f"{section.name}: {section.equal} values equal{'' if section.different else ', nothing differs'}")
    return 0


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
