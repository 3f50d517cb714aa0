"""The Optuna sweeper's config node as checked values. It belongs to Hydra's config, which our schema does not see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from pydantic import ValidationError

from tunix_rt.config.load import report, section_from
from tunix_rt.config.section import section
from tunix_rt.errors import ConfigError


@section
class PrunerSettings:
    """Median pruning: a trial ends if its best value so far is worse than the median of the others at that step."""

    metric: str
    """A metric of `metrics.jsonl`."""
    direction: Literal["minimize", "maximize"]
    n_startup_trials: Annotated[int, Ge(0)]
    """Finished trials before any is pruned."""
    n_warmup_steps: Annotated[int, Ge(0)]
    """Steps of training before a trial may be pruned."""


@section
class SamplerSettings:
    """TPE."""

    n_startup_trials: Annotated[int, Ge(0)]
    """Random trials before TPE models the results."""


@section
class StudySettings:
    """What `conf/hydra/sweeper/optuna.yaml` declares, except the search space."""

    n_trials: Annotated[int, Gt(0)]
    n_jobs: Annotated[int, Gt(0)]
    """Trials run at the same time."""
    seed: Annotated[int, Ge(0)]
    """Seed of the sampler."""
    sampler: SamplerSettings
    pruner: PrunerSettings | None


def settings_of(declared: Mapping[str, Any]) -> StudySettings:
    """Checks the node. Raises ConfigError that lists every mistake."""
    values = {key: value for key, value in _plain(declared).items() if key != "params"}
    try:
        found: StudySettings = section_from(StudySettings, values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, ('hydra.sweeper', *e['loc'])))}: {e['msg']}" for e in error.errors()]
        raise ConfigError(report(lines)) from error
    return found


def search_of(declared: Mapping[str, Any]) -> dict[str, Any]:
    """What enters the identity of a search: all except the number of trials, in total and at a time."""
    return {"sweeper": "optuna"} | {k: v for k, v in _plain(declared).items() if k not in ("n_trials", "n_jobs")}


def _plain(declared: Mapping[str, Any]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return {key: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for key, v in declared.items()}
