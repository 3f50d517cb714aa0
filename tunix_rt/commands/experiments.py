"""List the experiments: name, what it is, expected time."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tunix_rt.config.folders import config_folders
from tunix_rt.options import Options
from tunix_rt.terminal import out


def main(arguments: Sequence[str]) -> int:
    """Print a table of every `conf/experiment/*.yaml`, read from their opening comments."""
    parser = Options(__name__, __doc__)
    parser.json()
    chosen = parser.parse(arguments)
    found: dict[str, tuple[str, str]] = {}
    for folder in reversed(config_folders()):
        for file in sorted((folder / "experiment").glob("*.yaml")):
            found[file.stem] = header(file.read_text("utf-8"))
    if chosen.json:
        shown = [{"name": name, "time": time, "what": line} for name, (line, time) in sorted(found.items())]
        out(json.dumps(shown, ensure_ascii=False))
        return 0
    width = max(map(len, found), default=0)
    times = max((len(time) for _, time in found.values()), default=0)
    for name, (line, time) in sorted(found.items()):
        out(f"{name:{width}}  {time:{times}}  {line}".rstrip())
    return 0


def header(text: str) -> tuple[str, str]:
    """(description, expected time) of an experiment file: its first comment line and the one that begins `time:`."""
    comments = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    comments = [line for line in comments if not line.startswith("@package")]
    time = next((line.removeprefix("time:").strip() for line in comments if line.startswith("time:")), "")
    return (comments[0] if comments else ""), time
