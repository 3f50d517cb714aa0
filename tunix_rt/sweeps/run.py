"""The course of a sweep from its folder to its ranking, for any sweeper."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.config.identity import entering
from tunix_rt.config.load import section_from
from tunix_rt.errors import ConfigError, Interrupted, MissingExtra, RunError
from tunix_rt.files import JsonObject, digest
from tunix_rt.hints import say_folders
from tunix_rt.runs.folder import from_here
from tunix_rt.runs.liveness import heartbeat
from tunix_rt.runs.secrets import mask_values
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.sweeps import plots
from tunix_rt.sweeps.announce import label
from tunix_rt.sweeps.launch import stopping
from tunix_rt.sweeps.member import hide_password
from tunix_rt.sweeps.plan import Planned, estimate, seconds_per_member
from tunix_rt.sweeps.ranking import Member, ranked, ranking, rows, title, varying, verdict
from tunix_rt.terminal import out, say, table
from tunix_rt.tracking.syncer import start, warn_of_trouble

if TYPE_CHECKING:
    from omegaconf import DictConfig

NEEDS = {
    "hydra_plugins.hydra_joblib_launcher": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "hydra_plugins.hydra_submitit_launcher": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "hydra_plugins.tunix_rt_sweeps.ray_launcher": ("ray", "ray"),
    "hydra_plugins.tunix_rt_sweeps.optuna_sweeper": ("optuna", "optuna"),
}
"""What a launcher or sweeper imports, and the extra that installs it."""


def require(config: DictConfig) -> None:
    """Raise MissingExtra if the chosen launcher or sweeper is not installed."""
    for node in ("launcher", "sweeper"):
        target = str(config.hydra[node]._target_)
        for module, (needed, extra) in NEEDS.items():
            if target.startswith(module) and find_spec(needed) is None:
                choice = config.hydra.runtime.choices.get(f"hydra/{node}")
                raise MissingExtra(f"hydra/{node}={choice} needs the extra: pip install 'tunix_rt[{extra}]'")


def resolve_sweep_folder(config: DictConfig, search: JsonObject) -> SweepFolder:
    """The folder of a sweep, passed to Hydra as `hydra.sweep.dir`, so that each member finds it.

    Its identity is the declared experiment, what is varied (`search`), and what is optimised.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf, open_dict, read_write

    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    swept = sorted(str(override.input_line).lstrip("+") for override in overrides if override.is_sweep_override())
    whole: Any = OmegaConf.to_container(config, resolve=False)
    declared = {name: value for name, value in entering(whole).items() if name != "hydra"}
    aim = {"metric": config.sweep.metric, "direction": config.sweep.direction}
    identity = digest({"declared": declared, "swept": swept, "search": search, **aim})[:12]
    folder = (Path(str(config.run.root)) / str(config.name) / f"sweep-{identity}").absolute()
    with read_write(config), open_dict(config):
        hide_password(config)
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append("hydra.sweep.dir='{}'".format(str(folder).replace("'", "\\'")))
    return SweepFolder(folder)


@contextmanager
def running(sweep: SweepFolder, config: DictConfig, vary: Sequence[str]) -> Iterator[None]:
    """Claim the sweep's folder and record what is swept, while the block runs members."""
    from omegaconf import OmegaConf

    section: Any = OmegaConf.to_container(config.tracking, resolve=True)
    tracking = _tracking(section)
    warn_of_trouble(sweep.path, tracking)
    say_folders(str(config.run.root), str(config.run.data))
    with sweep.locked(), stopping(sweep), heartbeat(sweep.path / "sweep.json"):
        facts: JsonObject = {"experiment": str(config.name), "metric": str(config.sweep.metric)}
        facts |= {"direction": str(config.sweep.direction), "varying": list(vary)}
        sweep.begin(facts | {"tracking": mask_values(section), "directory": str(Path.cwd())})
        syncer = start(sweep.path, tracking)
        try:
            yield
        finally:
            if sweep.status()["state"] == "running":  # neither finished nor stopped: something broke
                sweep.end("failed")
            if sweep.asked_to_stop() is None:
                syncer.finish()
            else:
                syncer.leave()


def _tracking(section: Any) -> TrackingConfig:
    from pydantic import ValidationError

    try:
        return cast(TrackingConfig, section_from(TrackingConfig, section))
    except ValidationError as error:
        mistakes = [f"tracking.{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()]
        raise ConfigError("; ".join(mistakes)) from None


def preview(planned: Sequence[Planned], config: DictConfig) -> None:
    """List the members, what differs, which are finished already, and how long the others may take."""
    keys = varying([member.values for member in planned])
    shown = [
        [str(number), *(member.values.get(key, "") for key in keys), *_standing(member)]
        for number, member in enumerate(planned, start=1)
    ]
    table(f"{config.name}: {len(planned)} members", ["", *keys, "", "run"], shown, right=(0,))
    missing = sum(not member.done and member.mistake is None for member in planned)
    out(f"{sum(member.done for member in planned)} of {len(planned)} members are finished; nothing was started")
    out(estimate(missing, seconds_per_member(Path(str(config.run.root)), str(config.name))))


def _standing(member: Planned) -> tuple[str, str]:
    if member.mistake is not None or member.folder is None:
        return "would fail", (member.mistake or "").splitlines()[0]
    if member.done:
        return "finished", str(member.folder.path)
    return "started" if member.folder.status() else "missing", str(member.folder.path)


def skip_done(sweep: SweepFolder, planned: Sequence[Planned]) -> list[Planned]:
    """The members to run; reports those that are skipped because they are finished."""
    done = [member for member in planned if member.done and member.folder is not None]
    for member in done:
        assert member.folder is not None
        sweep.write(MemberRecord(member.overrides, "finished", str(member.folder.path)))
    if done:
        names = ", ".join(label(sweep, member.values) for member in done)
        say(f"{len(done)} of {len(planned)} members are finished and not run again: {names}")
    return [member for member in planned if not member.done]


def finish_sweep(sweep: SweepFolder, records: Sequence[MemberRecord], total: int, draw: Callable[[], None]) -> None:
    """Print the table, write it and the figures to the sweep's folder, and send them to the tracker.

    Raises RunError if a member failed, Interrupted if the sweep was stopped. `draw`: a sweeper's own figures.
    """
    status = sweep.status()
    metric, direction = str(status["metric"]), str(status["direction"])
    members = [Member.of(record) for record in records]
    found = ranked(members, metric, direction)
    columns, shown = rows(found, metric)
    table(
        title(str(status["experiment"]), members, metric),
        columns,
        shown,
        right=(0,),
        whole=(0, len(columns) - 4, len(columns) - 1),
    )
    out(verdict(found, label(sweep, found[0].member.values) if found else ""))
    sweep.write_ranking(ranking(found, metric))
    plots.parallel_coordinates(members, metric, sweep.path / "parallel_coordinates.png")
    draw()
    say(f"ranking: {from_here(sweep.ranking)}")
    failed = sum(member.state == "failed" for member in members)
    interrupted = sum(member.state == "interrupted" for member in members)
    why = sweep.asked_to_stop()
    sweep.end("interrupted" if why else "failed" if failed else "finished")
    if why is not None:
        done = sum(member.state in ("finished", "pruned") for member in members)
        number = signal.Signals[why] if why in signal.Signals.__members__ else signal.SIGINT
        message = f"{why}: sweep stopped; {done} of {total} members are done, {failed} failed"
        raise Interrupted(f"{message}; the same command goes on from there", 128 + number)
    if failed:
        raise RunError(f"{failed} of {len(members)} members failed")
    if interrupted:
        raise Interrupted(f"{interrupted} of {len(members)} members were interrupted; the same command goes on")
