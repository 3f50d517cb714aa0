"""Grid sweep over every combination of the given values: plans, previews or runs, and finishes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunix_rt.config.execution import SweepConfig
from tunix_rt.config.load import check_section
from tunix_rt.errors import ConfigError
from tunix_rt.files import write_json
from tunix_rt.sweeps import curve_plot, curves, run
from tunix_rt.sweeps.launch import launch
from tunix_rt.sweeps.plan import plan
from tunix_rt.sweeps.ranking import Member, varying
from tunix_rt.terminal import table


def combinations(loader: Any, params: dict[str, Any], arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of each member, in Hydra's own order; the command line wins over `params`.

    Raises ConfigError for an interval, which has infinitely many values.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create(config_loader=loader)
    given = parser.parse_overrides(list(arguments))
    known = {str(override.key_or_group) for override in given}
    words = [f"{key}={value}" for key, value in params.items() if key not in known]
    overrides = [*parser.parse_overrides(words), *given]
    for override in overrides:
        if override.is_interval_sweep():
            raise ConfigError(
                f"{str(override.input_line).lstrip('+')}: an interval has no end of values to try: "
                "give values (A,B), or search it with hydra/sweeper=optuna"
            )
    return BasicSweeper.split_arguments(overrides, None)[0]


def sweep_grid(sweeping: run.Sweeping, members: list[list[str]], at_once: int | None) -> None:
    """Run the unfinished members of the grid. Raises ConfigError if all are wrong, RunError if some failed,
    Interrupted if stopped.
    """
    sweep, config = sweeping.folder, sweeping.config
    planned = [plan(sweeping.loader, config, overrides) for overrides in members]
    mistakes = [member.reason for member in planned if member.reason is not None]
    if mistakes and len(mistakes) == len(planned):  # then it is not a member's
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    if config.sweep.preview:
        run.preview(planned, config)
        return
    with run.running(sweeping, varying([member.values for member in planned])):
        missing = run.skip_done(sweep, planned)
        size = at_once or max(len(missing), 1)
        for first in range(0, len(missing), size):
            launch(sweep, sweeping.launcher, missing[first : first + size], first, lambda _: None)
        records = [record for member in planned if (record := sweep.read(member.key)) is not None]
        run.finish_sweep(sweep, records, len(planned), lambda done: _leave_curves(sweeping, done))


def _leave_curves(sweeping: run.Sweeping, members: Sequence[Member]) -> None:
    """Print, write and draw the curves of a grid, if what it varies gives any."""
    from omegaconf import OmegaConf

    sweep, section = sweeping.folder, OmegaConf.to_container(sweeping.config.sweep, resolve=True)
    config: SweepConfig = check_section("sweep", SweepConfig, section)
    if (found := curves.curves_of(members, config.metric)) is None:
        return
    table("", *curves.rows(found), right=(1, 2, 4))
    write_json(sweep.path / "curves.json", curves.record(found, config.published))
    curve_plot.draw(found, config.published, sweep.path / "curves.png")
