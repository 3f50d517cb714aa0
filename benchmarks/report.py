"""Tables of a benchmark: printed, and written as Markdown with the machine, the command and the date."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tunix_rt.files import write_text
from tunix_rt.machine import usable_cores
from tunix_rt.terminal import out, table

PACKAGES = ("tunix_rt", "jax", "torch", "transformers", "google-tunix", "trl")
"""Packages whose versions are recorded, if installed."""
Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """A result as it is shown."""

    title: str
    columns: Row
    rows: Sequence[Row]
    note: str = ""
    """What a reader has to know about the numbers."""

    def show(self) -> None:
        """Print it."""
        table(self.title, self.columns, self.rows, right=range(1, len(self.columns)))
        if self.note:
            out(self.note)

    def markdown(self) -> str:
        """The same in Markdown."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        body = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        return f"### {self.title[:1].upper()}{self.title[1:]}\n\n{body}\n" + (f"\n{self.note}\n" if self.note else "")


def versions() -> dict[str, str]:
    """Of the packages that matter, those that are installed."""
    return {name: version(name) for name in PACKAGES if find_spec(name.removeprefix("google-")) is not None}


def about(devices: str) -> dict[str, str]:
    """Machine, command and date; `devices`: what computed."""
    words = sys.argv[1:]
    return {
        "machine": f"{devices}; {usable_cores()} cores, {platform.system()} {platform.machine()}",
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *words]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }


def write_markdown(path: Path, title: str, facts: dict[str, str], tables: Sequence[Table]) -> None:
    """Write all tables as one page."""
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    write_text(path, "\n".join([f"## {title}\n\n{listed}\n", *(one.markdown() for one in tables)]))


def mebibytes(size: float) -> str:
    """A size in MiB."""
    return f"{size / 2**20:,.1f} MiB"
