"""Show what of the disk can go (checkpoints of finished runs, data of no run, torn leftovers); --yes removes it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """List what can be removed, or with --yes remove it. Runs themselves stay: `rm` removes those."""
    parser = argparse.ArgumentParser(prog="tunix_rt gc", description=__doc__, epilog=main.__doc__)
    parser.add_argument("--yes", action="store_true", help="remove what is listed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root); every run that uses the data")
    parser.add_argument("--data", default="data", help="folder of prepared data (run.data)")
    chosen = parser.parse_args(list(arguments))

    from tunix_rt.files import to_json
    from tunix_rt.runs.disk import clear, reclaimable
    from tunix_rt.terminal import out, table

    found = reclaimable(Path(chosen.root), Path(chosen.data))
    if chosen.yes:
        found = clear(found, Path(chosen.root), Path(chosen.data))
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
