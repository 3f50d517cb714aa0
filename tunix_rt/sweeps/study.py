"""Optuna's study of a sweep: TPE proposes trials, a pruner ends hopeless ones, SQLite stores them.

What trial number k proposes depends on the declared seed, k and the results so far, not on whether the study was
stopped in between: a new sampler is created for each trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tunix_rt.config.section import Count, Natural, section
from tunix_rt.files import write_text
from tunix_rt.runs.log import whole_lines
from tunix_rt.runs.sweep import MemberRecord, SweepFolder, key_of
from tunix_rt.sweeps.member import PRUNED
from tunix_rt.sweeps.space import Space
from tunix_rt.tracking.tail import METRICS

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna import Trial
    from optuna.trial import FrozenTrial


@section
class PrunerSettings:
    """Median pruning: a trial ends if its best value so far is worse than the median of the others at that step."""

    metric: str
    """A metric of `metrics.jsonl`."""
    direction: Literal["minimize", "maximize"]
    n_startup_trials: Natural
    """Finished trials before any is pruned."""
    n_warmup_steps: Natural
    """Steps of training before a trial may be pruned."""


@section
class SamplerSettings:
    """TPE."""

    n_startup_trials: Natural
    """Random trials before TPE models the results."""


@section
class StudySettings:
    """What `conf/hydra/sweeper/optuna.yaml` declares, except the search space."""

    n_trials: Count
    n_jobs: Count
    """Trials run at the same time."""
    seed: Natural
    """Seed of the sampler."""
    sampler: SamplerSettings
    pruner: PrunerSettings | None


AGAIN = "again"
"""Marks a trial that repeats the values of one that failed or was interrupted."""
KEY = "member"
"""Says which member of the sweep a trial is."""


@dataclass(slots=True)
class Candidate:
    """A trial without a result yet."""

    trial: Trial
    overrides: list[str]
    reported: int = 0
    """Bytes of `metrics.jsonl` that the pruner has seen."""
    pruned: bool = False

    @property
    def key(self) -> str:
        return key_of(self.overrides)


class Study:
    """The study in a sweep's folder, created if it does not exist yet."""

    def __init__(self, sweep: SweepFolder, settings: StudySettings, space: Space, direction: str) -> None:
        import optuna
        from optuna.pruners import MedianPruner, NopPruner

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._settings, self._space, rule = settings, space, settings.pruner
        self._sign = 1.0 if rule is not None and rule.direction == direction else -1.0
        pruner = NopPruner() if rule is None else MedianPruner(rule.n_startup_trials, rule.n_warmup_steps)
        self._study: OptunaStudy = optuna.create_study(
            storage=f"sqlite:///{sweep.study}",
            study_name=sweep.name,
            direction="maximize" if direction == "maximize" else "minimize",
            pruner=pruner,
            load_if_exists=True,
        )

    def trials(self, *states: str) -> list[FrozenTrial]:
        """Trials in these states (`COMPLETE`, `PRUNED`, `FAIL`, `RUNNING`), or all, oldest first."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if not states or trial.state.name in states]

    def num_done(self) -> int:
        """Number of trials that need not run again."""
        return len(self.trials("COMPLETE", "PRUNED"))

    def is_whole(self, trial: FrozenTrial) -> bool:
        """Whether it has a value for everything searched: a sweep may be killed while it proposes them."""
        return trial.params.keys() == self._space.searched.keys()

    def to_repeat(self) -> list[dict[str, Any]]:
        """Values of failed and interrupted trials that no later trial has repeated, each once."""
        done = [trial.params for trial in self.trials("COMPLETE", "PRUNED")]
        found: list[dict[str, Any]] = []
        for trial in self.trials("FAIL"):
            if trial.params not in done and trial.params not in found and self.is_whole(trial):
                found.append(trial.params)
        return found

    def ask(self, values: dict[str, Any] | None) -> Candidate:
        """A new trial with these values, or with values proposed by the sampler."""
        from optuna.samplers import TPESampler

        if values is not None:
            self._study.enqueue_trial(values, user_attrs={AGAIN: True})
        fresh = sum(AGAIN not in trial.user_attrs and self.is_whole(trial) for trial in self.trials())
        seed, startup = self._settings.seed + fresh, self._settings.sampler.n_startup_trials
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=startup, constant_liar=self._settings.n_jobs > 1)
        trial = self._study.ask(self._space.searched)
        candidate = Candidate(trial, self._space.overrides(trial.params))
        trial.set_user_attr(KEY, candidate.key)
        return candidate

    def tell(self, trial: Trial | int, value: float | None, state: str) -> None:
        """Record how a trial ended: `COMPLETE` with its value, `PRUNED` or `FAIL`."""
        from optuna.trial import TrialState

        self._study.tell(trial, value, state=TrialState[state])

    def watch(self, candidate: Candidate, member: MemberRecord) -> None:
        """Read what a running member has logged, and ask it to stop if the pruner says so."""
        rule = self._settings.pruner
        if rule is None or candidate.pruned:
            return
        for offset, line in whole_lines(member.run.path / METRICS, candidate.reported):
            candidate.reported = offset
            if rule.metric not in line:
                continue
            step, value = int(line["step"]), float(line[rule.metric])
            candidate.trial.report(self._sign * value, step)
            if candidate.trial.should_prune():
                candidate.pruned = True
                why = f"{rule.metric} {value:.4g} at step {step} is worse than the median of the trials so far"
                write_text(member.run.path / "stop", f"{PRUNED}: {why}")
                return

    def importances(self) -> dict[str, float]:
        """Share of each parameter in the variance of the value; empty if there is too little data."""
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        values = {trial.value for trial in self.trials("COMPLETE")}
        if len(values) < 2:
            return {}
        return dict(get_param_importances(self._study, evaluator=FanovaImportanceEvaluator(seed=self._settings.seed)))
