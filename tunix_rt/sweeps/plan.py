"""Plans a member before it runs: its config, its run folder, and whether that is finished already."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.config.load import check, resolve
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import TunixError
from tunix_rt.runs.folder import RunFolder, all_runs, choose
from tunix_rt.runs.sweep import MemberRecord
from tunix_rt.terminal import duration

if TYPE_CHECKING:
    from omegaconf import DictConfig


def folder_of(config: ExperimentConfig) -> tuple[RunFolder, bool]:
    """The run folder that a config belongs to, and whether the run in it is finished. Raises DataError, ModelError."""
    from tunix_rt.engine.context import chain_of  # heavy
    from tunix_rt.engine.outputs import is_finished
    from tunix_rt.inputs import input_digests
    from tunix_rt.tracking.registry import ModelStore

    chain = chain_of(config, input_digests(config, ModelStore(config.tracking.uri)))
    folder = choose(Path(config.run.root), config.name, chain["report"], config.run.new)
    return folder, is_finished(folder, chain)


def plan(loader: Any, master: DictConfig, overrides: Sequence[str]) -> MemberRecord:
    """A member before it runs: `finished` by an earlier command (the same identity), `failed` if its config is wrong,
    else `planned`. `loader`: Hydra's. Raises HydraException if it does not compose.
    """
    from omegaconf import open_dict

    from tunix_rt.precision import decided  # heavy

    try:
        composed = loader.load_sweep_config(master, list(overrides))
        with open_dict(composed):
            del composed["hydra"]
        folder, done = folder_of(decided(check(resolve(composed))))
    except TunixError as error:
        return MemberRecord(tuple(overrides), "failed", None, str(error))
    return MemberRecord(tuple(overrides), "finished" if done else "planned", str(folder.path))


def seconds_per_member(config: DictConfig) -> tuple[float, int] | None:
    """Median duration of complete runs of the experiment (their recorded stages), and their number; None: unknown."""
    found: list[float] = []
    for run in all_runs(Path(str(config.run.root))):
        stages = run.stages()
        did_all = "report" in stages and all("folder" not in record for record in stages.values())
        if did_all and run.path.parent.name == config.name and run.status().get("state") == "finished":
            found.append(sum(float(record["stage_seconds"]) for record in stages.values()))
    return (statistics.median(found), len(found)) if found else None


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
