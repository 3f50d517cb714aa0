"""Put a run into one zip file with everything needed to believe it; `verify FILE.zip` checks that anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Export a finished run."""
    parser = argparse.ArgumentParser(prog="tunix_rt export", description=__doc__)
    parser.add_argument("run", help="a name, a prefix or `last`")
    parser.add_argument("file", nargs="?", type=Path, help="default: EXPERIMENT-IDENTITY.zip in the folder of the runs")
    parser.add_argument("--no-model", action="store_true", help="leave the model folder out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root)")
    chosen = parser.parse_args(list(arguments))

    from dataclasses import asdict

    from tunix_rt import hints
    from tunix_rt.files import to_json
    from tunix_rt.records.verify import export_run
    from tunix_rt.runs.folder import find_run
    from tunix_rt.terminal import out

    made = export_run(find_run(Path(chosen.root), chosen.run), chosen.file, not chosen.no_model)
    if chosen.json:
        out(to_json(asdict(made)))
    else:
        out(f"{made.file}: {made.files} files, {made.bytes:,} bytes{'' if made.model else ', without the model'}")
        out(f"check it: {hints.tunix_rt('verify', str(made.file))}")
    return 0
