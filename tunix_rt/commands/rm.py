"""Remove runs; refused while a process works there or another run uses the model or predictions.

What was sent to a tracker stays there, and is named; --tracking removes the runs there too, registered models never.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tunix_rt.commands import Parser
from tunix_rt.errors import InputError, TunixError
from tunix_rt.files import to_json
from tunix_rt.terminal import out, say

if TYPE_CHECKING:
    from tunix_rt.runs.folder import RunFolder


def main(arguments: Sequence[str]) -> int:
    """Ask for confirmation, and remove."""
    parser = Parser("rm", __doc__, "--json", "--root")
    parser.add_argument("runs", nargs="+", metavar="run", help="a name, a prefix or `last`")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--force", action="store_true", help="also where another run refers to it")
    parser.add_argument("--tracking", action="store_true", help="also remove its run in MLflow (or another tracker)")
    chosen = parser.parse(arguments)

    from tunix_rt.runs.disk import remove, size
    from tunix_rt.runs.folder import find_run
    from tunix_rt.tracking.remove import remove as in_store

    root = chosen.root
    found = [find_run(root, word, newest=False) for word in chosen.runs]
    if not chosen.yes:
        for run in found:
            say(f"{run.name}: {run.status().get('state')}, {size(run.path):,} bytes")
        if not sys.stdin.isatty():
            raise InputError("nothing removed: without a terminal to ask at, say --yes")
        if input("remove? [y/N] ").strip().lower() not in ("y", "yes"):
            out("nothing removed")
            return 0
    kept = [line for run in found for line in staying(run, chosen.tracking)]
    freed = {run.name: remove(run, root, chosen.force, in_store if chosen.tracking else None) for run in found}
    if chosen.json:
        out(to_json({"removed": freed, "stays": kept}))
    else:
        for name, bytes_ in freed.items():
            out(f"removed {name}: {bytes_:,} bytes")
        for line in kept:
            out(f"stays: {line}")
    return 0


def staying(run: RunFolder, removing: bool) -> Iterator[str]:
    """What the tracker has of a run and keeps, one line per item. A tracker that does not answer is not an error."""
    from tunix_rt.tracking.remove import models, stored
    from tunix_rt.tracking.store import IN_RUN

    found = [one for one in stored(run) if one.store != IN_RUN]
    if not removing:
        for one in found:
            yield f"{run.name}: its run {one.run_id} in {one.store} ({one.kind}); --tracking removes it too"
    try:
        yield from (f"{run.name}: its registered model {model} stays registered" for model in models(run))
    except TunixError as error:
        yield f"{run.name}: models that were registered of it, if any ({error})"
