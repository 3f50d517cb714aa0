"""Reports each change of a member at once: one line, with what it varies and its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tunix_rt.errors import InputError
from tunix_rt.files import read_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.rates import lookup, shown
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.terminal import say


def label(sweep: SweepFolder, values: dict[str, str]) -> str:
    """What distinguishes a member from the others of its sweep."""
    keys: Sequence[str] = sweep.status().get("varying") or list(values)
    return " ".join(f"{key}={short(values[key])}" for key in keys if key in values) or "the only one"


def short(text: str) -> str:
    """A number of seventeen digits, cut to five; short numbers and text unchanged."""
    try:
        return text if len(text) < 8 else f"{float(text):.5g}"
    except ValueError:
        return text


def announce(sweep: SweepFolder, record: MemberRecord) -> None:
    """Print the current state of a member."""
    who = f"member {label(sweep, record.values)}"
    where = f" ({record.folder})" if record.folder else ""
    if record.state == "running":
        say(f"{who}: running{where}; prints to {os.path.relpath(sweep.log(record.key))}")
    elif record.state == "finished":
        say(f"{who}: finished, {_value(sweep, record)}{where}")
    elif record.state == "failed":
        say(f"error: {who} failed{where}, the others go on: {record.reason}")
    else:
        say(f"{who}: {record.state}{where}: {record.reason}")


def _value(sweep: SweepFolder, record: MemberRecord) -> str:
    metric = str(sweep.status()["metric"])
    try:
        return f"{metric} {shown(lookup(read_json(RunFolder(Path(record.folder or '')).metrics), metric))}"
    except InputError as error:  # a misspelt metric concerns all members and is reported at the end
        return str(error).splitlines()[0]
