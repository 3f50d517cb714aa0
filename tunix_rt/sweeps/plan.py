"""Plans a member before it runs: its config, its run folder, and whether that is finished already."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.config.load import check, resolve
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import ConfigError, TunixError
from tunix_rt.files import JsonObject
from tunix_rt.runs.folder import RunFolder, all_runs, choose
from tunix_rt.runs.sweep import key_of, values_of
from tunix_rt.terminal import duration

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, slots=True)
class Planned:
    """One member that may run."""

    overrides: tuple[str, ...]
    folder: RunFolder | None
    """Its run folder; None if its config is wrong."""
    done: bool
    """Finished by an earlier command, recognised by its identity."""
    mistake: str | None = None

    @property
    def key(self) -> str:
        return key_of(self.overrides)

    @property
    def values(self) -> dict[str, str]:
        return values_of(self.overrides)


def folder_of(config: ExperimentConfig) -> tuple[RunFolder, bool]:
    """The run folder that a config belongs to, and whether the run in it is finished. Raises DataError, ModelError."""
    from tunix_rt.engine.context import chain_of  # heavy
    from tunix_rt.engine.outputs import is_finished
    from tunix_rt.inputs import input_digests
    from tunix_rt.tracking.registry import ModelStore

    chain = chain_of(config, input_digests(config, ModelStore(config.tracking.uri)))
    folder = choose(Path(config.run.root), config.name, chain["report"], config.run.new)
    return folder, is_finished(folder, chain)


def plan(loader: Any, master: DictConfig, overrides: Sequence[str]) -> Planned:
    """Compose a member (`loader`: Hydra's) and look for its run. Raises HydraException if it does not compose."""
    try:
        config = check(mapping_of(loader.load_sweep_config(master, list(overrides))))
        folder, done = folder_of(config)
    except TunixError as error:
        return Planned(tuple(overrides), None, False, str(error))
    return Planned(tuple(overrides), folder, done)


def plan_all(loader: Any, master: DictConfig, members: Sequence[Sequence[str]]) -> list[Planned]:
    """Plan every member. Raises ConfigError if all of them are wrong, since the mistake is then not a member's."""
    planned = [plan(loader, master, overrides) for overrides in members]
    mistakes = [member.mistake for member in planned]
    if mistakes and all(mistakes):
        raise ConfigError("\n".join(dict.fromkeys(filter(None, mistakes))))
    return planned


def mapping_of(composed: DictConfig) -> dict[str, Any]:
    """A composed config as plain data, without Hydra's own node. Raises ConfigError."""
    from omegaconf import open_dict

    with open_dict(composed):
        composed.pop("hydra", None)
    return resolve(composed)


def seconds_per_member(root: Path, experiment: str) -> tuple[float, int] | None:
    """Median duration of complete runs of the experiment (their recorded stages), and their number; None: unknown."""
    found: list[float] = []
    for run in all_runs(root):
        stages = run.stages()
        if run.path.parent.name == experiment and run.status().get("state") == "finished" and _did_all(stages):
            found.append(sum(float(record["stage_seconds"]) for record in stages.values()))
    return (statistics.median(found), len(found)) if found else None


def _did_all(stages: JsonObject) -> bool:
    return "report" in stages and all("folder" not in record for record in stages.values())


def estimate(missing: int, known: tuple[float, int] | None) -> str:
    """How long the missing members may take, in words; based only on measurements."""
    if missing == 0:
        return "nothing is left to run"
    members = "1 member" if missing == 1 else f"{missing} members"
    if known is None:
        return f"time for {members}: unknown, no run of this experiment is finished yet"
    seconds, runs = known
    return (
        f"time for {members}: about {duration(missing * seconds)} of work "
        f"({duration(seconds)} each, median of {runs} finished; side by side they share the machine)"
    )
