"""Write a page of a run for a browser: one file with every answer, searched and filtered, and the curves.

`report RUN` makes it of what the run folder holds, also of an older run without report.html.
`report RUN --against OTHER` puts the answers of two runs side by side, with those that only one got right. What
`compare` refuses (other questions, other rules) is refused here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunix_rt.commands import Parser
from tunix_rt.files import write_text
from tunix_rt.terminal import out


def main(arguments: Sequence[str]) -> int:
    """Write the page, and say where it is."""
    parser = Parser("report", __doc__, "run", "--root")
    parser.add_argument("--against", metavar="OTHER", help="another run, whose answers are shown beside RUN's")
    help = "put runs that were asked different questions side by side on those that they have in common"
    parser.add_argument("--common", action="store_true", help=help)
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: named after RUN, in the folder of the runs")
    chosen = parser.parse(arguments)

    from tunix_rt.report.html.page import default_file, page
    from tunix_rt.runs.folder import find_run

    other = None if chosen.against is None else find_run(chosen.root, chosen.against)
    file: Path = chosen.out or default_file(chosen.run, other)
    write_text(file, page(chosen.run, other, chosen.common))
    out(f"{file}: {file.stat().st_size:,} bytes, for a browser")
    return 0
