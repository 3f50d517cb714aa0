"""Run the experiment that +experiment=NAME and KEY=VALUE declare (the word `run` may be left out).

The door to Hydra: composition, -m sweeps, --cfg, --info and completion are Hydra's own. `--dry-run` lists the
members of a sweep, tells which are finished and what the others may take, and starts nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunix_rt.errors import ConfigError, ask_for_traceback
from tunix_rt.runs.secrets import masked_output, password_to_variable
from tunix_rt.sweeps.member import Home, member
from tunix_rt.tracking.content import URI_VARIABLE

DRY_RUN = "--dry-run"
"""A sweep that lists its members and starts nothing."""


def main(arguments: Sequence[str]) -> int:
    """Hand the command line to Hydra, with overrides checked first. Raises what the experiment raises."""
    import hydra
    from hydra._internal.utils import get_args_parser

    from tunix_rt.config.load import check_overrides, config_folders, report, search_working_directory

    folders = config_folders()
    words = [word for word in arguments if word != DRY_RUN]
    parsed = get_args_parser().parse_args(words)
    overrides = list(parsed.overrides or [])
    preview = ["--multirun", "++sweep.preview=true"] if DRY_RUN in arguments else []
    if not (parsed.help or parsed.hydra_help or parsed.shell_completion):
        mistakes, kept = check_overrides(overrides, folders)
        if mistakes:
            raise ConfigError(report([*mistakes, *_mistakes_in_values(kept)]))
        flags = [word for word in words if word not in overrides]
        words = [*flags, *preview, *password_to_variable(kept, "tracking.uri", URI_VARIABLE)]
    sys.argv = [sys.argv[0], *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting by itself
    search_working_directory()
    task = _Task(Home.here())
    try:
        with masked_output() if parsed.cfg else nullcontext():
            hydra.main(config_path=str(folders[-1]), config_name="config", version_base="1.3")(task)()
    except hydra.errors.HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if task.caught:
        raise task.caught[0]
    return 0


@dataclass(slots=True)
class _Task:
    """What Hydra calls once, or for each member of a sweep, wherever a launcher has carried it."""

    home: Home
    caught: list[Exception] = field(default_factory=list)
    """A single run's error, raised again in `main`, where Hydra adds no lines of its own."""

    def __call__(self, composed: Any) -> Any:
        if _sweeping():
            return member(composed, self.home)
        try:
            return _show(_run(composed))
        except Exception as error:
            if composed.get("debug") is True:
                ask_for_traceback(error)
            self.caught.append(error)
            return None


def _mistakes_in_values(overrides: Sequence[str]) -> list[str]:
    """What else is wrong, when a choice already is: values of the rest of the command line, but those of a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from tunix_rt.config.load import compose, find_mistakes

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    single = [
        text
        for text, override in zip(overrides, parsed, strict=True)
        if not override.is_sweep_override() and not override.key_or_group.startswith("hydra")
    ]
    return [f"{path}: {what}" for path, what in find_mistakes(compose(single))[0]]


def _sweeping() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _run(composed: Any) -> dict[str, Any]:
    from tunix_rt.config.load import check, resolve

    config = check(resolve(composed))

    from tunix_rt.experiment import run  # heavy: only when the config is right

    result = run(config)
    return {"folder": str(result.folder), "metrics": result.metrics, "tracking": config.tracking}


def _show(end: dict[str, Any]) -> dict[str, Any]:
    """The table at the end of a single run."""
    from tunix_rt.experiment import show
    from tunix_rt.runs.folder import RunFolder

    show(RunFolder(Path(end["folder"])), end["tracking"])
    return end
