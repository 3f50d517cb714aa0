"""The words of a command: the options that many commands share, and mistakes reported like all others."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tunix_rt import hints
from tunix_rt.errors import InputError


class Options(argparse.ArgumentParser):
    """Parses the words of the command in `module`; options may stand anywhere. A mistake raises InputError."""

    def __init__(self, module: str, *paragraphs: str | None) -> None:
        self.command = module.rpartition(".")[2]
        width = shutil.get_terminal_size().columns - 2
        said = [textwrap.fill(part, width) for text in paragraphs if text for part in text.split("\n\n")]
        super().__init__(
            prog=f"tunix_rt {self.command}",
            description="\n\n".join(said),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def run(self, more: str = "") -> None:
        """A run that is there, as `chosen.run`."""
        self.add_argument("run", help=f"a name, a prefix or `last`{more}")

    def root(self) -> None:
        """The folder of the runs, as `chosen.root`."""
        self.add_argument("--root", type=Path, default=Path("runs"), help="folder of the runs (run.root)")

    def json(self) -> None:
        """Whether to print for a program, as `chosen.json`."""
        self.add_argument("--json", action="store_true", help="print one JSON value, with all that is known")

    def parse(self, words: Sequence[str]) -> Namespace:
        """What was chosen. Raises InputError."""
        return self.parse_intermixed_args(list(words))

    def error(self, message: str) -> NoReturn:
        """Called by argparse for a mistake."""
        raise InputError(f"{message}; see {hints.tunix_rt(self.command, '--help')}")
