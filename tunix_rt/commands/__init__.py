"""One command per file: its docstring is its help, `main(arguments)` is the command. Substance lives elsewhere."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from tunix_rt import hints, offers
from tunix_rt.config.overrides import nearest
from tunix_rt.errors import InputError

COMMON: dict[str, dict[str, Any]] = {
    "run": {"help": "a name, a prefix or `last`"},
    "overrides": {"nargs": "*", "help": "+experiment=NAME and KEY=VALUE, as for a run (see `options`)"},
    "--root": {"type": Path, "default": Path("runs"), "help": "folder of the runs (run.root)"},
    "--json": {"action": "store_true", "help": "print one JSON object"},
}
"""Arguments that several commands take."""


class Parser(argparse.ArgumentParser):
    """The arguments of one command, `common` ones first. A mistake raises InputError with one line."""

    def __init__(self, command: str, docstring: str | None, *common: str) -> None:
        self.command, width = command, shutil.get_terminal_size().columns - 2
        paragraphs = [textwrap.fill(paragraph, width) for paragraph in (docstring or "").split("\n\n")]
        shape = argparse.RawDescriptionHelpFormatter
        super().__init__(f"tunix_rt {command}", description="\n\n".join(paragraphs), formatter_class=shape)
        for name in common:
            self.add_argument(name, **COMMON[name])
        self.finds_run = "run" in common

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Options may stand anywhere among the positional arguments; the common `run` becomes its folder."""
        if offers.asked():
            offers.offer(self)
        chosen, unknown = self.parse_known_intermixed_args(arguments)
        if unknown:
            option = unknown[0].startswith("-")
            near = nearest(unknown[0].partition("=")[0], self._option_string_actions) if option else ""
            self.error(f"{unknown[0]}: {'no such option' if option else 'one word too many'}{near}")
        if self.finds_run:
            from tunix_rt.runs.folder import find_run

            chosen.run = find_run(chosen.root, chosen.run)
        return chosen

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {hints.tunix_rt(self.command, '--help')}")
