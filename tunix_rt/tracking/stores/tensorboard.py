"""TensorBoard as a store: event files with metrics, hyperparameters, figures, the report and some predictions.

They are in the folder `tensorboard` of the run, or in `log_dir`/experiment/run; `tensorboard --logdir` shows any folder
above them. The other files of a run are not copied: TensorBoard has no place for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunix_rt.config.section import Execution, Text, section
from tunix_rt.files import JsonObject
from tunix_rt.hints import command
from tunix_rt.tracking.store import IN_RUN, Entry, Facts, Status, Store, Table
from tunix_rt.tracking.stores import _event_file as event_file
from tunix_rt.tracking.stores._held import by_moment
from tunix_rt.tracking.tail import Point

FOLDER = "tensorboard"
TEXTS, IMAGES = (".md", ".yaml", ".diff"), ".png"
"""Artifacts that TensorBoard can show."""


@section
class TensorBoardSettings:
    """`tracking.stores.tensorboard`."""

    log_dir: Execution[Text | None] = None
    """Folder for the event files of all runs; null: each run's own folder."""


class TensorBoardStore(Store):
    """The event files of one run."""

    title = "TensorBoard"
    settings_type = TensorBoardSettings
    package = "tensorboard"
    reads_back = True
    settings: TensorBoardSettings
    _entry: Entry
    _events: event_file.EventFolder
    _declared: list[Any]

    @classmethod
    def address(cls, uri: str, settings: TensorBoardSettings) -> str:
        return settings.log_dir or IN_RUN

    @classmethod
    def resolve(cls, uri: str, directory: Path) -> str:
        return uri if uri == IN_RUN else str((directory / uri).resolve())

    @classmethod
    def ui_command(cls, uri: str, folder: Path) -> str:
        return command(["tensorboard", "--logdir", str(folder.parent if uri == IN_RUN else uri)])

    def open(self, entry: Entry) -> str:
        """Its id is what TensorBoard calls it; in `log_dir` a run made anew has another key in its name."""
        root, name = entry.folder.parent.parent, Path(entry.folder.parent.name, entry.folder.name, FOLDER)
        if self.uri != IN_RUN:
            root, name = Path(self.uri), Path(self.experiment, f"{entry.name}-{entry.tags['tunix_rt.key'][:8]}")
        self._entry, self._events, self._declared = entry, event_file.EventFolder(root / name), []
        return name.as_posix()

    def params(self, facts: Facts) -> None:
        """Only those of a run: a sweep's own are in the HPARAMS of its members. The description is text."""
        started = self._entry.started
        parameters = facts.parameters | {key: value for key, value in facts.tags.items() if key != "command"}
        self._declared = [event_file.session(parameters, self._entry.name, started / 1000)]
        if facts.note:
            self._declared.append(event_file.text("description", facts.note))
        self._events.declare(self._declared, started)

    def metrics(self, points: Sequence[Point]) -> None:
        for step, time, together in by_moment(points):
            self._events.add([event_file.scalar(point.key, point.value) for point in together], step, time)
        self._events.flush()

    def artifact(self, name: str, content: Path | str) -> None:
        suffix = Path(name).suffix
        if isinstance(content, str):
            self._events.add([event_file.text(name, _fenced(content))], 0, self._entry.started)
        elif content.is_file() and suffix in (*TEXTS, IMAGES):
            time = content.stat().st_mtime_ns // 1_000_000
            tag = name.removesuffix(suffix)
            shown = content.read_text("utf-8") if suffix in TEXTS else ""
            text = shown if suffix == ".md" else _fenced(shown)
            value = event_file.image(tag, content.read_bytes()) if suffix == IMAGES else event_file.text(name, text)
            self._events.add([value], 0, time)
        self._events.flush()

    def table(self, table: Table) -> None:
        """The predictions that are sent in full, as a table in Markdown; a table without them in whole."""
        rows = table.rows if not table.examples else [_cells(row, table.columns) for row in table.examples]
        lines = [table.columns, ["---"] * len(table.columns), *rows]
        text = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
        self._events.add([event_file.text(Path(table.name).stem, text)], 0, table.time or self._entry.started)
        self._events.flush()

    def close(self, status: Status, ended: int | None) -> None:
        if status not in ("running", "waiting") and ended is not None and self._declared:
            end = event_file.end(status != "finished", ended / 1000)
            self._events.declare([*self._declared, end], self._entry.started)
        self._events.close()

    def remove(self, run_id: str) -> None:
        """Where it is in the run's folder, it goes with that; in `log_dir` only event files are removed.

        The id comes from a record, which may be of another machine: it is never taken for a path.
        """
        if self.uri != IN_RUN:
            event_file.remove(Path(self.uri) / self.experiment / Path(run_id).name)


STORE = TensorBoardStore


def _cells(row: JsonObject, columns: Sequence[str]) -> list[object]:
    return [row.get(column) for column in columns]


def _cell(value: object) -> str:
    text = "" if value is None else "; ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _fenced(text: str) -> str:
    """As code, whatever is in it (an indented block of Markdown)."""
    return "\n".join(f"    {line}" for line in text.splitlines())
