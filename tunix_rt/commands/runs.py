"""List the runs with their scores, newest last; filter and sort by any value: `runs accuracy>0.5 --sort accuracy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunix_rt import hints
from tunix_rt.commands import Parser
from tunix_rt.files import to_json
from tunix_rt.terminal import out, table

COLUMNS = ("run", "started", "state", "backend", "accuracy")
WHERE_KNOWN = ("devices", "from", "reason")
"""Columns that are shown only if a run has a value for them."""


def main(arguments: Sequence[str]) -> int:
    """Print a table of the runs below the runs folder."""
    parser = Parser("runs", __doc__, "--json", "--root")
    parser.add_argument(
        "filters", nargs="*", help="KEY=VALUE, or with != < > <= >= ~ (contains): a column, a metric, a config key"
    )
    parser.add_argument("--sort", default="started", metavar="KEY")
    parser.add_argument("--reverse", action="store_true", help="largest first")
    parser.add_argument("--columns", metavar="KEY,KEY", help="shown besides the usual ones")
    chosen = parser.parse(arguments)

    from tunix_rt.runs.table import select

    found = select(chosen.root, chosen.filters, chosen.sort, chosen.reverse)
    if chosen.json:
        out(to_json([record.to_json() for record in found]))
    elif found:
        asked = [key for key in (chosen.sort, *(chosen.columns or "").split(",")) if key and key not in COLUMNS]
        known = [key for key in WHERE_KNOWN if any(record.value(key) is not None for record in found)]
        if "devices" in known:
            known.insert(known.index("devices") + 1, "local_batch_size")
        columns = list(dict.fromkeys([*COLUMNS, *asked, *known]))
        rows = [[shown(column, record.value(column)) for column in columns] for record in found]
        table("", columns, rows, right=range(4, len(columns) - len(known)))
    elif chosen.filters:
        out(f"no run in {chosen.root}/ is like that")
    else:
        out(f"no runs in {chosen.root}/ yet; start one: {hints.tunix_rt('+experiment=quickstart')}")
    return 0


def shown(column: str, value: Any) -> str:
    """A value as a table cell."""
    if value is None:
        return ""
    if column == "accuracy":
        return f"{100 * value:.1f} %"
    if column == "started":
        return str(value)[:16]
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:80]
