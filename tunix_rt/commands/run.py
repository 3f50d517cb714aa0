"""Run the experiment that +experiment=NAME and KEY=VALUE declare (the word `run` may be left out).

The door to Hydra: composition, -m sweeps, --cfg and --info are Hydra's own. `--dry-run` lists the
members of a sweep, tells which are finished and what the others may take, and starts nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from tunix_rt.config.folders import EXPERIMENT, choices, config_folders, groups, search_working_directory
from tunix_rt.errors import ConfigError, InputError, ask_for_traceback
from tunix_rt.hints import say_folders
from tunix_rt.runs.secrets import URI_VARIABLE, mask_values, masked_output, password_to_variable
from tunix_rt.terminal import out

if TYPE_CHECKING:
    from tunix_rt.sweeps.member import Home

AFTER = """
  KEY=VALUE                  any value: `python -m tunix_rt options [PREFIX]` explains every key
  -m KEY=A,B OTHER=C,D       a sweep over every combination; --dry-run only lists its members
  --cfg job [--resolve]      show the composed config, and run nothing
  --info, --hydra-help       what Hydra itself says and offers

`python -m tunix_rt experiments` says what each experiment is; `python -m tunix_rt --help` lists the other commands."""
"""The end of the help."""
DRY_RUN = "--dry-run"
"""The option that lists a sweep's members and starts nothing."""


def main(arguments: Sequence[str]) -> int:
    """Hand the command line to Hydra, with overrides checked first. Raises what the experiment raises."""
    if not {"--help", "-h"}.isdisjoint(arguments):
        out(help_text())
        return 0
    import hydra

    from tunix_rt.config.load import report
    from tunix_rt.config.overrides import check_overrides, hydra_message
    from tunix_rt.sweeps.member import Home

    folders = config_folders()
    flags, overrides, chosen = _parsed([word for word in arguments if word != DRY_RUN])
    if DRY_RUN in arguments:
        flags += ["--multirun"]
    asked = chosen.hydra_help or chosen.shell_completion
    if not asked:
        mistakes, overrides = check_overrides(overrides, folders)
        if mistakes or chosen.cfg:
            mistakes += _mistakes_in_values(overrides)
        if mistakes:
            raise ConfigError(report(mistakes))
        overrides = password_to_variable(overrides, "tracking.uri", URI_VARIABLE)
    if DRY_RUN in arguments:
        overrides = ["++sweep.preview=true", *overrides]
    sys.argv = [sys.argv[0], *overrides, *flags]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting by itself
    search_working_directory()
    if chosen.cfg == "job":
        return _show_config(overrides, chosen)
    task = _Task(Home())
    try:
        with masked_output() if asked or chosen.cfg or chosen.info else nullcontext():
            hydra.main(config_path=str(folders[-1]), config_name="config", version_base="1.3")(task)()
    except hydra.errors.HydraException as error:
        raise ConfigError(hydra_message(error)) from error
    if task.caught:
        raise task.caught[0]
    return 0


def help_text() -> str:
    """What `--help` prints: how a run is declared, the files to choose from, and where every key is explained."""
    width = shutil.get_terminal_size().columns
    folders = config_folders()
    named = {f"+{EXPERIMENT}": choices(EXPERIMENT, folders), **groups()}
    lines = [textwrap.fill(paragraph, width) + "\n" for paragraph in (__doc__ or "").split("\n\n")]
    for group, names in named.items():
        lines.append(
            textwrap.fill(f"{group}={' | '.join(names)}", width, initial_indent="  ", subsequent_indent="    ")
        )
    return "\n".join(
        ["usage: python -m tunix_rt [run] [+experiment=NAME] [GROUP=NAME …] [KEY=VALUE …] [OPTION …]\n", *lines, AFTER]
    )


def _parsed(words: Sequence[str]) -> tuple[list[str], list[str], Namespace]:
    """Split the command line into Hydra's options and the overrides, in any order, and parse the options.

    Hydra itself takes an override after `-m` for an unknown option (facebookresearch/hydra#3053). Raises InputError.
    """
    from hydra._internal.utils import get_args_parser

    from tunix_rt.config.load import meant

    parser: Any = get_args_parser()
    parser.error = _refuse
    chosen, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        key = unknown[0].lstrip("-").partition("=")[0].replace("-", "_")
        raise InputError(f"{unknown[0]}: no such option (values are given as KEY=VALUE{meant(key)}); see --help")
    if sum(map(bool, (chosen.cfg, chosen.info, chosen.multirun, chosen.run, chosen.shell_completion))) > 1:
        raise InputError("only one of --run, -m, --cfg, --info and --shell-completion at a time")
    overrides = list(chosen.overrides or [])
    return [word for word in words if word not in overrides], overrides, chosen


def _refuse(message: str) -> NoReturn:
    raise InputError(f"{message}; see --help")


def _show_config(overrides: Sequence[str], chosen: Namespace) -> int:
    """Print the config for `--cfg job`: Hydra's own output would show secrets."""
    from omegaconf import OmegaConf

    from tunix_rt.config.load import composed, resolve

    config = composed([word for word in overrides if not _is_hydra(word)])
    resolve(config)
    shown: Any = mask_values(OmegaConf.to_container(config, resolve=bool(chosen.resolve)))
    package = None if chosen.package in (None, "_global_") else chosen.package
    if package is not None:
        shown = OmegaConf.select(OmegaConf.create(shown), package)
        if shown is None:
            raise InputError(f"--package {package}: not found in the config")
        out(f"# @package {package}")
    out(OmegaConf.to_yaml(shown).rstrip() if isinstance(shown, dict) or OmegaConf.is_config(shown) else str(shown))
    return 0


def _is_hydra(override: str) -> bool:
    return override.lstrip("+~").partition("=")[0].replace("/", ".").split(".")[0] == "hydra"


@dataclass(slots=True)
class _Task:
    """The function that Hydra calls once, or for each member of a sweep in the process its launcher started."""

    home: Home
    caught: list[Exception] = field(default_factory=list)
    """Carries a single run's error to `main`, which raises it again without lines added by Hydra."""

    def __call__(self, composed: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from tunix_rt.sweeps.member import member

        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return member(composed, self.home)
        try:
            _run(composed)
        except Exception as error:
            if composed.get("debug") is True:
                ask_for_traceback(error)
            self.caught.append(error)
        return None


def _mistakes_in_values(overrides: Sequence[str]) -> list[str]:
    """Further errors, if a choice is already wrong: checks the rest of the command line, except swept values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from tunix_rt.config.load import compose, find_mistakes

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = {override.input_line for override in parsed if override.is_sweep_override()}
    mistakes, _ = find_mistakes(compose([text for text in overrides if text not in swept and not _is_hydra(text)]))
    return [f"{path}: {what}" for path, what in mistakes]


def _run(composed: Any) -> None:
    """A single run, and the table at its end."""
    from tunix_rt.config.load import check, resolve

    config = check(resolve(composed))
    say_folders(config.run.root, config.run.data)

    from tunix_rt.experiment import run, show  # heavy import: only if the config is valid
    from tunix_rt.runs.folder import RunFolder

    show(RunFolder(run(config).folder), config.tracking)
