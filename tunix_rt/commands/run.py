"""Run the experiment that +experiment=NAME and KEY=VALUE declare (the verb may be left out).

The door to Hydra: composition, -m sweeps, --cfg, --info and completion are Hydra's own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunix_rt.errors import ConfigError, Interrupted, TunixError


def main(arguments: Sequence[str]) -> int:
    """Hand the command line to Hydra, with overrides checked first. Raises what the experiment raises."""
    import hydra
    from hydra._internal.utils import get_args_parser

    from tunix_rt.config.load import check_overrides, config_folders, report, search_working_directory

    folders = config_folders()
    parsed = get_args_parser().parse_args(list(arguments))
    overrides = list(parsed.overrides or [])
    if parsed.help or parsed.hydra_help or parsed.shell_completion:
        words = list(arguments)
    else:
        mistakes, kept = check_overrides(overrides, folders)
        if mistakes:
            raise ConfigError(report([*mistakes, *_mistakes_in_values(kept)]))
        flags = [word for word in arguments if word not in overrides]
        words = [*flags, *kept]
    sys.argv = [sys.argv[0], *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing and exiting by itself
    search_working_directory()
    caught: list[Exception] = []

    def task(composed: Any) -> dict[str, Any]:
        """What Hydra calls once, or for each member of a sweep, whose end goes to the sweep's callback."""
        try:
            return _member(composed) if _sweeping() else _show(_run(composed))
        except Exception as error:  # raised again below, where Hydra adds no lines of its own
            caught.append(error)
            return {"error": str(error)}

    try:
        hydra.main(config_path=str(folders[-1]), config_name="config", version_base="1.3")(task)()
    except hydra.errors.HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if caught:
        raise caught[0]
    return 0


def _mistakes_in_values(overrides: Sequence[str]) -> list[str]:
    """What else is wrong, when a choice already is: values of the rest of the command line."""
    from tunix_rt.config.load import compose, find_mistakes

    single = [text for text in overrides if not text.split("=")[0].lstrip("+").startswith("hydra")]
    return [f"{path}: {what}" for path, what in find_mistakes(compose(single))[0]]


def _sweeping() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _member(composed: Any) -> dict[str, Any]:
    """A member of a sweep: its failure is said at once and the others go on; only an interrupt stops the sweep."""
    try:
        return _run(composed)
    except Interrupted as error:
        print(f"error: sweep stopped: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    except TunixError as error:
        print(f"error: this member failed, the others go on: {error}", file=sys.stderr)
        return {"error": str(error)}


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
