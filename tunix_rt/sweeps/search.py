"""A search: asks the study for trials, runs them as members, reports the results, until enough are done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.files import read_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.rates import lookup
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.sweeps import plots, run
from tunix_rt.sweeps.declared import StudySettings
from tunix_rt.sweeps.launch import launch
from tunix_rt.sweeps.plan import Planned, estimate, plan, seconds_per_member
from tunix_rt.sweeps.space import Space
from tunix_rt.sweeps.study import KEY, Candidate, Study
from tunix_rt.terminal import out, say, table

if TYPE_CHECKING:
    from omegaconf import DictConfig


class Search:
    """One command's part in a search."""

    def __init__(
        self, sweep: SweepFolder, config: DictConfig, loader: Any, launcher: Any, settings: StudySettings, space: Space
    ) -> None:
        self._sweep, self._config, self._loader, self._launcher = sweep, config, loader, launcher
        self._settings, self._space = settings, space
        self._metric, self._direction = str(config.sweep.metric), str(config.sweep.direction)

    def run(self) -> None:
        """Run the trials that are missing. Raises RunError if members failed, Interrupted if stopped."""
        total = self._settings.n_trials
        with run.running(self._sweep, self._config, list(self._space.searched)):
            study = Study(self._sweep, self._settings, self._space, self._direction)
            self._tidy(study)
            again, done = study.to_repeat(), study.num_done()
            if study.trials():
                say(f"{done} of {total} trials are done and not run again; {len(again)} are repeated")
            left = total - done
            while left > 0 and self._sweep.asked_to_stop() is None:
                size = min(self._settings.n_jobs, left)
                batch = [study.ask(again.pop(0) if again else None) for _ in range(size)]
                self._run_batch(study, batch, total - left)
                left -= size
            run.finish_sweep(self._sweep, self._records(study), total, lambda: self._draw(study))

    def preview(self) -> None:
        """Show the search space, the known trials, and how long the others may take."""
        rows = [[key, written] for key, written in self._space.declared.items()]
        table(f"{self._config.name}: {self._settings.n_trials} trials by TPE", ["searched", "in"], rows)
        done = 0
        if self._sweep.study.exists():
            study = Study(self._sweep, self._settings, self._space, self._direction)
            done = study.num_done()
            known = [
                [str(t.number), *(str(t.params.get(key, "")) for key in self._space.searched), t.state.name.lower()]
                for t in study.trials()
            ]
            table("trials so far", ["", *self._space.searched, "state"], known, right=(0,))
        out(f"{done} of {self._settings.n_trials} trials are done; nothing was started")
        root, name = Path(str(self._config.run.root)), str(self._config.name)
        out(estimate(max(self._settings.n_trials - done, 0), seconds_per_member(root, name)))

    def _tidy(self, study: Study) -> None:
        """Close trials that a killed sweep left open: with the results of their runs, or to be repeated."""
        for trial in study.trials("RUNNING"):
            if not study.is_whole(trial):
                study.tell(trial.number, None, "FAIL")
                continue
            member = plan(self._loader, self._config, study.overrides_of(trial))
            if member.done and member.folder is not None:
                record = MemberRecord(member.overrides, "finished", str(member.folder.path))
                self._sweep.write(record)
                self._tell(study, trial.number, record)
            else:
                self._tell(study, trial.number, self._sweep.read(member.key))

    def _run_batch(self, study: Study, batch: Sequence[Candidate], first: int) -> None:
        """Run these trials in parallel; trials with the same values are one member."""
        candidates = {candidate.key: candidate for candidate in reversed(batch)}
        planned = [plan(self._loader, self._config, candidate.overrides) for candidate in candidates.values()]
        missing = run.skip_done(self._sweep, planned)

        def watch(member: Planned) -> None:
            study.watch(candidates[member.key], member)

        launch(self._sweep, self._launcher, missing, first, watch)
        for candidate in batch:
            self._tell(study, candidate.trial.number, self._sweep.read(candidate.key))

    def _tell(self, study: Study, number: int, record: MemberRecord | None) -> None:
        if record is not None and record.state == "finished":
            study.tell(
                number, lookup(read_json(RunFolder(Path(record.folder or "")).metrics), self._metric), "COMPLETE"
            )
        else:
            study.tell(number, None, "PRUNED" if record is not None and record.state == "pruned" else "FAIL")

    def _records(self, study: Study) -> list[MemberRecord]:
        keys = dict.fromkeys(str(trial.user_attrs[KEY]) for trial in study.trials() if KEY in trial.user_attrs)
        return [record for key in keys if (record := self._sweep.read(key)) is not None]

    def _draw(self, study: Study) -> None:
        if shares := study.importances():
            plots.importances(shares, self._metric, self._sweep.path / "importances.png")
