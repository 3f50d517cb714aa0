"""Two runs side by side: config, data, code, environment, results; only what differs, and what is equal in a line."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.options import Options


def main(arguments: Sequence[str]) -> int:
    """Print the differences of two runs."""
    parser = Options(__name__, __doc__)
    parser.add_argument("left", help="a run: a name, a prefix or `last`")
    parser.add_argument("right", help="another one")
    parser.json()
    parser.root()
    chosen = parser.parse(arguments)

    from tunix_rt.files import to_json
    from tunix_rt.runs.diff import side_by_side
    from tunix_rt.runs.folder import find_run
    from tunix_rt.terminal import out, table

    left, right = (find_run(chosen.root, word) for word in (chosen.left, chosen.right))
    sections = side_by_side(left, right)
    if chosen.json:
        shown = {s.name: {"equal": s.equal, "different": s.different} for s in sections}
        out(to_json({"left": left.name, "right": right.name, **shown}))
        return 0
    for section in sections:
        if section.different:
            rows = [(key, shortened(str(a)), shortened(str(b))) for key, (a, b) in section.different.items()]
            table(section.name, ("", left.name, right.name), rows)
    for section in sections:
        nothing = "" if section.different else ", nothing differs"
        out(f"{section.name}: {section.equal} values equal{nothing}")
    return 0


def shortened(text: str) -> str:
    """A value as a table cell of at most 60 characters; --json prints all of it."""
    return text if len(text) <= 60 else f"{text[:59]}…"
