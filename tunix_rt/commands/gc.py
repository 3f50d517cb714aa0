"""Show what of the disk can go (checkpoints of finished runs, data of no run, torn leftovers); --yes removes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunix_rt.options import Options


def main(arguments: Sequence[str]) -> int:
    """List what can be removed, or with --yes remove it. Runs themselves stay: `rm` removes those."""
    parser = Options(__name__, __doc__, main.__doc__)
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    parser.json()
    parser.root()
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of prepared data (run.data)")
    chosen = parser.parse(arguments)

    from tunix_rt.files import to_json
    from tunix_rt.runs.disk import clear, reclaimable
    from tunix_rt.terminal import out, table

    found = reclaimable(chosen.root, chosen.data)
    if chosen.yes:
        found = clear(found, chosen.root, chosen.data)
    total = sum(item.bytes for item in found)
    if chosen.json:
        items = [{"kind": item.kind, "path": str(item.path), "bytes": item.bytes} for item in found]
        out(to_json({"removed": chosen.yes, "bytes": total, "items": items}))
        return 0
    if found:
        table(
            "",
            ("what", "where", "bytes"),
            [(i.kind, str(i.path), f"{i.bytes:,}") for i in found],
            right=(2,),
            whole=(1, 2),
        )
    what = f"removed: {total:,} bytes" if chosen.yes else f"{total:,} bytes can go; --yes removes them"
    out(what if found else "nothing can go")
    return 0
