"""What works on this machine, what does not, and what to type: frameworks, devices, folders, trackers and the rest.

Changes nothing and sends nothing. The exit code is 0 if a run would work, else 1. With words as for a run (see
`options`), the folders and trackers of that experiment are examined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import inf
from typing import TYPE_CHECKING

from tunix_rt.commands import Parser
from tunix_rt.files import to_json
from tunix_rt.terminal import out

if TYPE_CHECKING:
    from tunix_rt.doctor.finding import Finding
    from tunix_rt.styled import Line

MARKS = {"works": "✓", "broken": "✗", "absent": "–"}
STYLES = {"works": "", "broken": "red", "absent": "dim"}


def main(arguments: Sequence[str]) -> int:
    """Print what was found."""
    parser = Parser("doctor", __doc__, "overrides", "--json")
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="how long a check may wait; a framework five times that (default: 8)"
    )
    chosen = parser.parse(arguments)
    if not 0 < chosen.seconds < inf:
        parser.error(f"--seconds {chosen.seconds:g}: a number above 0")

    from tunix_rt.config.load import check, compose
    from tunix_rt.doctor.examine import examine
    from tunix_rt.doctor.finding import Place
    from tunix_rt.styled import lines

    found = examine(Place(check(compose(chosen.overrides)), chosen.seconds))
    stopping = [one.name for group in found.values() for one in group if one.stops]
    if chosen.json:
        checks = [{"subject": subject} | asdict(one) for subject, group in found.items() for one in group]
        out(to_json({"works": not stopping, "checks": checks}))
    else:
        lines([_line(one) for group in found.values() for one in group])
        out(f"\nno run works before this is mended: {', '.join(stopping)}" if stopping else "\na run would work")
    return 1 if stopping else 0


def _line(found: Finding) -> Line:
    from tunix_rt.styled import Line

    remedy = [(f"  → {found.remedy}", "cyan")] if found.remedy else []
    return Line(found.name, [(found.text, STYLES[found.state]), *remedy], MARKS[found.state])
