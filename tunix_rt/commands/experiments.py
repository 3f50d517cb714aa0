"""List the experiments: name, what it is, expected time."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.commands import Parser
from tunix_rt.config.folders import config_folders
from tunix_rt.terminal import out


def main(arguments: Sequence[str]) -> int:
    """Print a table of every `conf/experiment/*.yaml`, read from their opening comments."""
    chosen = Parser("experiments", __doc__, "--json").parse(arguments)
    files = {file.stem: file for folder in reversed(config_folders()) for file in folder.glob("experiment/[!_]*.yaml")}
    found = [(name, *header(files[name].read_text("utf-8"))) for name in sorted(files)]
    if chosen.json:
        from tunix_rt.files import to_json

        out(to_json([{"name": name, "time": time, "what": what} for name, what, time in found]))
        return 0
    width = max((len(name) for name, _, _ in found), default=0)
    times = max((len(time) for _, _, time in found), default=0)
    for name, what, time in found:
        out(f"{name:{width}}  {time:{times}}  {what}".rstrip())
    return 0


def header(text: str) -> tuple[str, str]:
    """(description, expected time) of an experiment file: its first comment line and the one that begins `time:`."""
    comments = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    comments = [line for line in comments if not line.startswith("@package")]
    time = next((line.removeprefix("time:").strip() for line in comments if line.startswith("time:")), "")
    return (comments[0] if comments else ""), time
