"""Put a run into one zip file with everything needed to believe it, or its model into a form that other programs take.

The zip file is what `verify FILE.zip` checks anywhere. With --to: `gguf` is one file for llama.cpp. docs/elsewhere.md
says what each opens with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from tunix_rt import hints
from tunix_rt.commands import Parser
from tunix_rt.config.choices import GgufDtype
from tunix_rt.errors import InputError
from tunix_rt.files import to_json
from tunix_rt.terminal import out

FORMS = ("zip", "gguf")


def main(arguments: Sequence[str]) -> int:
    """Export a finished run."""
    parser = Parser("export", __doc__, "run", "--json", "--root")
    parser.add_argument("file", nargs="?", type=Path, help="default: EXPERIMENT-IDENTITY… in the folder of the runs")
    parser.add_argument("--to", choices=FORMS, default="zip", help="the form (default: zip)")
    parser.add_argument("--output", type=Path, help="the same as the file behind the run")
    parser.add_argument("--no-model", action="store_true", help="zip: leave the model folder out")
    parser.add_argument(
        "--dtype", choices=get_args(GgufDtype), default="F16", help="gguf: of its matrices (default: F16)"
    )
    chosen = parser.parse(arguments)
    if chosen.file is not None and chosen.output is not None:
        raise InputError(f"{chosen.file} and --output {chosen.output}: name one of the two")
    place = chosen.file or chosen.output
    if chosen.to == "zip":
        from tunix_rt.records.verify import export_run

        made = export_run(chosen.run, place, not chosen.no_model)
        said = [f"{made.file}: {made.files} files, {made.bytes:,} bytes{'' if made.model else ', without the model'}"]
        said.append(f"check it: {hints.tunix_rt('verify', str(made.file))}")
        _say(chosen.json, asdict(made), said)
    else:
        from tunix_rt.exporting.gguf import export_gguf

        file = export_gguf(chosen.run, place, chosen.dtype)
        size = file.stat().st_size
        said = [f"{file}: {size:,} bytes, {chosen.dtype}", f"ask it: llama-cli -m {file}"]
        _say(chosen.json, {"file": str(file), "bytes": size, "dtype": chosen.dtype}, said)
    return 0


def _say(as_json: bool, record: dict[str, object], lines: list[str]) -> None:
    for line in [to_json(record)] if as_json else lines:
        out(line)
