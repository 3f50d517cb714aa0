"""Put a run into one zip file with everything needed to believe it; `verify FILE.zip` checks that anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tunix_rt import hints
from tunix_rt.commands import Parser
from tunix_rt.files import to_json
from tunix_rt.terminal import out


def main(arguments: Sequence[str]) -> int:
    """Export a finished run."""
    parser = Parser("export", __doc__, "run", "--json", "--root")
    parser.add_argument("file", nargs="?", type=Path, help="default: EXPERIMENT-IDENTITY.zip in the folder of the runs")
    parser.add_argument("--no-model", action="store_true", help="leave the model folder out")
    chosen = parser.parse(arguments)

    from tunix_rt.records.verify import export_run

    made = export_run(chosen.run, chosen.file, not chosen.no_model)
    if chosen.json:
        out(to_json(asdict(made)))
    else:
        out(f"{made.file}: {made.files} files, {made.bytes:,} bytes{'' if made.model else ', without the model'}")
        out(f"check it: {hints.tunix_rt('verify', str(made.file))}")
    return 0
