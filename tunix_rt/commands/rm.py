"""Remove runs; refused while a process works there or another run uses the model or predictions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Ask, and remove."""
    parser = argparse.ArgumentParser(prog="tunix_rt rm", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="run", help="a name, a prefix or `last`")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--force", action="store_true", help="also where another run refers to it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root)")
    chosen = parser.parse_intermixed_args(list(arguments))

    from tunix_rt.errors import InputError
    from tunix_rt.files import to_json
    from tunix_rt.runs.disk import remove, size
    from tunix_rt.runs.folder import find_run
    from tunix_rt.terminal import out, say

    root = Path(chosen.root)
    found = [find_run(root, word, newest=False) for word in chosen.runs]
    if not chosen.yes:
        for run in found:
            say(f"{run.name}: {run.status().get('state')}, {size(run.path):,} bytes")
        if not sys.stdin.isatty():
            raise InputError("nothing removed: without a terminal to ask at, say --yes")
        if input("remove? [y/N] ").strip().lower() not in ("y", "yes"):
            out("nothing removed")
            return 0
    freed = {run.name: remove(run, root, chosen.force) for run in found}
    if chosen.json:
        out(to_json({"removed": freed}))
    else:
        for name, bytes_ in freed.items():
            out(f"removed {name}: {bytes_:,} bytes")
    return 0
