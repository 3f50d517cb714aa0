"""Sends a run folder to a store: finds what is new in it and sends one item after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.sweep import sweep_of
from tunix_rt.tracking import content
from tunix_rt.tracking.state import FolderSync
from tunix_rt.tracking.store import ENDED, Entry, Status, Store
from tunix_rt.tracking.sweep import open_sweep
from tunix_rt.tracking.tail import RunLogs


class RunSync(FolderSync):
    """Sends one run; `parent` returns the id of its sweep's run, if that is known without asking the store."""

    folder: RunFolder

    def __init__(
        self,
        run: RunFolder,
        tracking: TrackingConfig,
        kind: str,
        directory: Path | None = None,
        parent: Callable[[], str] | None = None,
    ) -> None:
        super().__init__(run, tracking, kind, directory)
        self._parent, self._logs = parent, RunLogs(run)

    def find(self, store: Store, known: str | None, running: bool) -> str:
        run = self.folder
        return store.open(
            Entry(
                name=content.run_name(run),
                tags=content.identity_tags(run, self.state.key),
                started=round(1000 * float(run.status()["started"])),
                folder=run.path,
                known=known,
                parent=self._parent_id(),
                running=running,
            )
        )

    def _parent_id(self) -> str | None:
        if self._parent is not None:
            return self._parent()
        sweep = sweep_of(self.folder)
        return None if sweep is None else open_sweep(sweep, self.make_store())

    def send(self, status: Status) -> None:
        store, run, ended = self.open(status), self.folder, status in ENDED
        self._send_points(store, status)
        described = [run.config, run.environment, run.data, *((run.status_file, run.report) if ended else ())]
        self.send_new("facts", described, partial(content.facts, run, ended, self.target.kind), store.params)
        for name, file in content.records(run).items():
            self.send_file(store, name, file)
        diff = partial(store.artifact, content.DIFF)
        self.send_new(content.DIFF, [run.environment], partial(content.git_diff, run), diff)
        if ended:
            results = [run.metrics, run.baseline_metrics]
            self.send_new("results", results, partial(content.results, run), store.metrics)
            table = partial(content.predictions, run, self.tracking.num_traces)
            self.send_new(content.PREDICTIONS, [run.predictions, run.items], table, store.table)
            if self.tracking.log_model and run.model.is_dir():
                self.send_file(store, "model", run.model)

    def ended(self) -> float:
        """For a killed run: when it last wrote something."""
        files = [self.folder.status_file, *self._logs.files().values()]
        last = max(file.stat().st_mtime for file in files if file.exists())
        return float(self.folder.status().get("ended") or last)

    def _send_points(self, store: Store, status: Status) -> None:
        while True:
            points, offsets = self._logs.new(self.state.offsets, ended=status != "running")
            if offsets == self.state.offsets:
                return
            store.metrics(points)
            self.state.offsets = offsets
            self.state.save()
