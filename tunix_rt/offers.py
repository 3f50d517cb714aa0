"""What the shell offers when Tab is pressed: commands and their options, runs, experiments, files of groups, keys.

A shell that has run the line of `python -m tunix_rt completion` starts the program with the variables of argcomplete
(https://github.com/kislyuk/argcomplete); it then answers instead of doing what the words say.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from tunix_rt.config.folders import EXPERIMENT, PLUGGED, choices, config_folders, groups

ASKED = "_ARGCOMPLETE"
"""Set by the shell's function: which word of the line is the program, from 1."""
FLAGS = ("-m", "--dry-run", "--cfg", "--resolve", "--package", "--info", "--hydra-help")
"""Options of a run; Hydra parses them."""


def asked() -> bool:
    """Whether this process was started to complete a line."""
    return ASKED in os.environ


def answer(commands: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Offer what may follow on the line of the shell. Does not return.

    The first word is one of `commands`, whose own `parser` then answers (`offer`), or it belongs to a run: `parser`.
    """
    from argcomplete.lexers import split_line

    begin = int(os.environ[ASKED])
    words = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3][begin:]
    if words and words[0] in commands:
        os.environ[ASKED] = str(begin + 1)
        if words[0] != "run":
            importlib.import_module(f"tunix_rt.commands.{words[0]}").main([])
    parser.add_argument("words", nargs="*")
    for flag in FLAGS:
        parser.add_argument(flag, action="store_true")
    first = [] if words else commands
    COMPLETERS["words"] = lambda prefix, **_: [*overrides(prefix, first), *first]
    offer(parser)


def offer(parser: argparse.ArgumentParser) -> None:
    """Offer the options of a parser, and for each of its words what its name stands for. Does not return."""
    import argcomplete

    for action in parser._actions:
        if action.dest in COMPLETERS:
            action.completer = COMPLETERS[action.dest]  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options=False)


def run_names(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """`last`, and all runs below `--root`."""
    from tunix_rt.runs.folder import all_runs

    return ["last", *(run.name for run in all_runs(getattr(parsed_args, "root", Path("runs"))))]


def overrides(prefix: str, others: Sequence[str] = (), **_: Any) -> list[str]:
    """`+experiment=NAME`, `GROUP=NAME`, and `KEY=VALUE` as far as its values can be listed.

    Before a dot is typed, keys that lie in no group (`seed`, `run.new`) are offered where no group and none of `others`
    begins so: to know them takes longer.
    """
    own, folders = groups(), config_folders()
    named = {
        f"+{EXPERIMENT}": choices(EXPERIMENT, folders),
        **own,
        **{name: choices(name, folders) for name in PLUGGED},
    }
    key = prefix.partition("=")[0]
    if "=" not in prefix:
        asked = "." in prefix or not any(name.startswith(prefix) for name in (*named, *others))
        found = [path for path in keys() if "." in prefix or path.partition(".")[0] not in own] if asked else []
        return [f"{name}=" for name in [*named, *found]]
    return [f"{key}={value}" for value in named.get(key) or _values(key)]


def keys(prefix: str = "", **_: Any) -> list[str]:
    """Every key of the config, and every section."""
    from tunix_rt.config.schema import ExperimentConfig
    from tunix_rt.config.section import keys_below

    return list(dict.fromkeys(path for path, _ in keys_below(ExperimentConfig)))


def _values(key: str) -> list[str]:
    """The values of a key that has a closed set of them."""
    from tunix_rt.config.schema import ExperimentConfig
    from tunix_rt.config.section import keys_below

    hints = [part for path, hint in keys_below(ExperimentConfig) if path == key for part in (hint, *get_args(hint))]
    values = [value for hint in hints if get_origin(hint) is Literal for value in get_args(hint)]
    return [str(value) for value in values] or (["true", "false"] if bool in hints else [])


COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "run": run_names,
    "runs": run_names,
    "others": run_names,
    "left": run_names,
    "right": run_names,
    "against": run_names,
    "what": run_names,
    "overrides": overrides,
    "prefix": keys,
    "model": lambda **_: choices("model", config_folders()),
}
"""Name of a command's argument → what may be given for it. For others the shell offers files."""
