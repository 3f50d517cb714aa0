"""Show what of the disk can go (checkpoints of finished runs, data of no run, torn leftovers); --yes removes it.

Runs themselves stay: `rm` removes those.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunix_rt.commands import Parser
from tunix_rt.files import to_json
from tunix_rt.terminal import out, table


def main(arguments: Sequence[str]) -> int:
    """List what can be removed, or with --yes remove it."""
    parser = Parser("gc", __doc__, "--json", "--root")
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    of_data = "folder of prepared data (run.data); --root must hold every run that uses it"
    parser.add_argument("--data", default=Path("data"), type=Path, help=of_data)
    chosen = parser.parse(arguments)

    from tunix_rt.runs.disk import clear, reclaimable

    found = reclaimable(chosen.root, chosen.data)
    if chosen.yes:
        found = clear(found, chosen.root, chosen.data)
    total = sum(item.bytes for item in found)
    if chosen.json:
        items = [{"kind": item.kind, "path": str(item.path), "bytes": item.bytes} for item in found]
        out(to_json({"removed": chosen.yes, "bytes": total, "items": items}))
    elif found:
        rows = [(item.kind, str(item.path), f"{item.bytes:,}") for item in found]
        table("", ("what", "where", "bytes"), rows, right=(2,), whole=(1, 2))
        out(f"removed: {total:,} bytes" if chosen.yes else f"{total:,} bytes can go; --yes removes them")
    else:
        out("nothing can go")
    return 0
