"""A search: asks the study for trials, runs them as members, reports the results, until enough are done."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.files import read_json
from tunix_rt.runs.rates import lookup
from tunix_rt.runs.sweep import MemberRecord
from tunix_rt.sweeps import plots, run
from tunix_rt.sweeps.launch import launch
from tunix_rt.sweeps.plan import estimate, plan, seconds_per_member
from tunix_rt.sweeps.space import Space
from tunix_rt.sweeps.study import KEY, Candidate, Study, StudySettings
from tunix_rt.terminal import out, say, table


class Search:
    """One command's part in a search."""

    def __init__(self, sweeping: run.Sweeping, settings: StudySettings, space: Space) -> None:
        self._sweeping, self._settings, self._space = sweeping, settings, space
        self._sweep, self._config = sweeping.folder, sweeping.config
        self._metric, self._direction = str(self._config.sweep.metric), str(self._config.sweep.direction)

    def run(self) -> None:
        """Run the trials that are missing. Raises RunError if members failed, Interrupted if stopped."""
        total = self._settings.n_trials
        with run.running(self._sweeping, list(self._space.searched)):
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
            run.finish_sweep(self._sweep, self._records(study), total, lambda _: self._draw(study))

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
        out(estimate(max(self._settings.n_trials - done, 0), seconds_per_member(self._config)))

    def _tidy(self, study: Study) -> None:
        """Close trials that a killed sweep left open: with the results of their runs, or to be repeated."""
        for trial in study.trials("RUNNING"):
            if not study.is_whole(trial):
                study.tell(trial.number, None, "FAIL")
                continue
            member = plan(self._sweeping.loader, self._config, self._space.overrides(trial.params))
            if member.state == "finished":
                self._sweep.write(member)
            self._tell(study, trial.number, self._sweep.read(member.key))

    def _run_batch(self, study: Study, batch: Sequence[Candidate], first: int) -> None:
        """Run these trials in parallel; trials with the same values are one member."""
        candidates = {candidate.key: candidate for candidate in reversed(batch)}
        planned = [plan(self._sweeping.loader, self._config, each.overrides) for each in candidates.values()]
        missing, launcher = run.skip_done(self._sweep, planned), self._sweeping.launcher
        launch(self._sweep, launcher, missing, first, lambda member: study.watch(candidates[member.key], member))
        for candidate in batch:
            self._tell(study, candidate.trial.number, self._sweep.read(candidate.key))

    def _tell(self, study: Study, number: int, record: MemberRecord | None) -> None:
        if record is not None and record.state == "finished":
            study.tell(number, lookup(read_json(record.run.metrics), self._metric), "COMPLETE")
        else:
            study.tell(number, None, "PRUNED" if record is not None and record.state == "pruned" else "FAIL")

    def _records(self, study: Study) -> list[MemberRecord]:
        keys = dict.fromkeys(str(trial.user_attrs[KEY]) for trial in study.trials() if KEY in trial.user_attrs)
        return [record for key in keys if (record := self._sweep.read(key)) is not None]

    def _draw(self, study: Study) -> None:
        if shares := study.importances():
            plots.importances(shares, self._metric, self._sweep.path / "importances.png")
