"""The course of a sweep from its folder to its ranking, for any sweeper."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.config.identity import entering
from tunix_rt.config.load import check_section
from tunix_rt.errors import Interrupted, MissingExtra, RunError
from tunix_rt.files import JsonObject, digest
from tunix_rt.hints import say_folders
from tunix_rt.runs.folder import from_here
from tunix_rt.runs.liveness import heartbeat
from tunix_rt.runs.secrets import mask_values
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.sweeps import plots
from tunix_rt.sweeps.launch import stopping
from tunix_rt.sweeps.member import hide_password
from tunix_rt.sweeps.plan import estimate, seconds_per_member
from tunix_rt.sweeps.ranking import Member, label, ranked, ranking, rows, title, varying, verdict
from tunix_rt.terminal import out, say, table
from tunix_rt.tracking.syncer import start, warn_of_trouble

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

NEEDS = {
    "hydra_plugins.hydra_joblib_launcher": ("hydra_plugins.hydra_joblib_launcher", "joblib"),
    "hydra_plugins.hydra_submitit_launcher": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
    "hydra_plugins.tunix_rt_sweeps.slurm_launcher": ("hydra_plugins.hydra_submitit_launcher", "submitit"),
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


@dataclass(frozen=True, slots=True)
class Sweeping:
    """What a sweeper works with."""

    folder: SweepFolder
    config: DictConfig
    loader: Any
    """Hydra's, which composes members."""
    launcher: Any


def set_up(
    search: JsonObject, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Sweeping:
    """Resolve the sweep's folder, then create the launcher. Raises MissingExtra."""
    from hydra.core.plugins import Plugins

    require(config)
    folder = resolve_sweep_folder(config, search)
    given: Any = {"hydra_context": hydra_context, "task_function": task_function, "config": config}
    return Sweeping(folder, config, hydra_context.config_loader, Plugins.instance().instantiate_launcher(**given))


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
def running(sweeping: Sweeping, vary: Sequence[str]) -> Iterator[None]:
    """Claim the sweep's folder and record what is swept, while the block runs members."""
    from omegaconf import OmegaConf

    sweep, config = sweeping.folder, sweeping.config
    section: Any = OmegaConf.to_container(config.tracking, resolve=True)
    tracking: TrackingConfig = check_section("tracking", TrackingConfig, section)
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


def preview(planned: Sequence[MemberRecord], config: DictConfig) -> None:
    """List the members, what differs, which are finished already, and how long the others may take."""
    keys = varying([member.values for member in planned])
    shown = [
        [str(number), *(member.values.get(key, "") for key in keys), *_standing(member)]
        for number, member in enumerate(planned, start=1)
    ]
    table(f"{config.name}: {len(planned)} members", ["", *keys, "", "run"], shown, right=(0,))
    states = [member.state for member in planned]
    out(f"{states.count('finished')} of {len(planned)} members are finished; nothing was started")
    out(estimate(states.count("planned"), seconds_per_member(config)))


def _standing(member: MemberRecord) -> tuple[str, str]:
    if member.folder is None:
        return "would fail", (member.reason or "").splitlines()[0]
    if member.state == "finished":
        return "finished", member.folder
    return "started" if member.run.status() else "missing", member.folder


def skip_done(sweep: SweepFolder, planned: Sequence[MemberRecord]) -> list[MemberRecord]:
    """The members to run; reports those that are skipped because they are finished."""
    done = [member for member in planned if member.state == "finished"]
    for member in done:
        sweep.write(member)
    if done:
        names = ", ".join(label(sweep, member.values) for member in done)
        say(f"{len(done)} of {len(planned)} members are finished and not run again: {names}")
    return [member for member in planned if member.state != "finished"]


def finish_sweep(
    sweep: SweepFolder, records: Sequence[MemberRecord], total: int, draw: Callable[[Sequence[Member]], None]
) -> None:
    """Print the table, write it and the figures to the sweep's folder, and send them to the tracker.

    Raises RunError if a member failed, Interrupted if the sweep was stopped. `draw`: a sweeper's own figures.
    """
    status = sweep.status()
    metric, direction = str(status["metric"]), str(status["direction"])
    members = [Member.of(record) for record in records]
    found = ranked(members, metric, direction)
    columns, shown = rows(found, metric)
    whole = (0, len(columns) - 4, len(columns) - 1)
    table(title(str(status["experiment"]), members, metric), columns, shown, right=(0,), whole=whole)
    out(verdict(found, label(sweep, found[0].member.record.values) if found else ""))
    sweep.write_ranking(ranking(found))
    plots.parallel_coordinates(members, metric, sweep.path / "parallel_coordinates.png")
    draw(members)
    say(f"ranking: {from_here(sweep.ranking)}")
    states = [record.state for record in records]
    failed, interrupted = states.count("failed"), states.count("interrupted")
    why = sweep.asked_to_stop()
    sweep.end("interrupted" if why else "failed" if failed else "finished")
    if why is not None:
        done = states.count("finished") + states.count("pruned")
        number = signal.Signals[why] if why in signal.Signals.__members__ else signal.SIGINT
        message = f"{why}: sweep stopped; {done} of {total} members are done, {failed} failed"
        raise Interrupted(f"{message}; the same command goes on from there", 128 + number)
    if failed:
        raise RunError(f"{failed} of {len(members)} members failed")
    if interrupted:
        raise Interrupted(f"{interrupted} of {len(members)} members were interrupted; the same command goes on")
