"""List the runs with their scores, newest last."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Print a table of the runs below the runs folder."""
    parser = argparse.ArgumentParser(prog="tunix_rt runs", description=__doc__)
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root)")
    root = Path(parser.parse_args(list(arguments)).root)

    from tunix_rt.files import read_json
    from tunix_rt.runs.folder import all_runs
    from tunix_rt.runs.rates import lookup
    from tunix_rt.terminal import out, table

    rows = []
    for run in all_runs(root):
        status = run.status()
        metrics = read_json(run.metrics) if run.metrics.exists() else None
        accuracy = f"{100 * lookup(metrics, 'accuracy'):.1f} %" if metrics else ""
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(status["started"])))
        rows.append((run.name, started, str(status["state"]), accuracy, str(status.get("reason") or "")[:60]))
    if rows:
        table("", ("run", "started", "state", "accuracy", "reason"), rows, right=(3,))
    else:
        out(f"no runs in {root}/ yet; start one: python -m tunix_rt +experiment=quickstart")
    return 0
