"""The runs as records that can be filtered and sorted by any value of status, config or metrics.

Reads run folders; the config of a run is parsed only if a key needs it.
"""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tunix_rt.config.choices import BACKENDS
from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, read_record
from tunix_rt.runs.diff import compare, leaves, value_at
from tunix_rt.runs.folder import RunFolder, all_runs
from tunix_rt.runs.origin import starts_of

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "~": operator.contains,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
FILTER = re.compile(r"\s*([\w.@/-]+?)\s*(<=|>=|!=|~|<|>|=)\s*(.*?)\s*")


WHERE = ("name", "debug", "hardware", "checkpoint", "tracking", "run", "sweep")
"""Sections that say where a run is made, not what it computes."""
SHOWN = 3
"""How many differing values of another run are named."""


@dataclass
class RunRecord:
    """What a table shows about a run."""

    run: RunFolder

    @cached_property
    def status(self) -> JsonObject:
        return self.run.status()

    @cached_property
    def summary(self) -> JsonObject:
        """The values that have a short name; None for a value that does not exist (yet)."""
        metrics = self.metrics
        environment = read_record(self.run.environment)
        ended = self.status.get("ended")
        return {
            "run": self.run.name,
            "experiment": self.run.path.parent.name,
            "started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(self.status["started"]))),
            "seconds": None if ended is None else round(float(ended) - float(self.status["started"]), 1),
            "state": self.status["state"],
            "backend": next((name for name in BACKENDS if name in environment.get("backend", {})), None),
            "devices": self._devices,
            "local_batch_size": self.run.stages().get("train", {}).get("local_batch_size"),
            "accuracy": metrics.get("accuracy", {}).get("value"),
            "n": metrics.get("n"),
            "reproduces": read_record(self.run.path / "reproduction.json").get("of"),
            "from": origin(self.run),
            "reason": self.status.get("reason"),
        }

    @property
    def _devices(self) -> int | None:
        """How many it was trained on; None for one, as of most runs."""
        count = len(self.run.stages().get("train", {}).get("devices", []))
        return count if count > 1 else None

    @cached_property
    def metrics(self) -> JsonObject:
        return read_record(self.run.metrics)

    @cached_property
    def config(self) -> JsonObject:
        return dict(leaves(self.run.read_config()))

    def value(self, key: str) -> Any:
        """The value of `accuracy`, `metrics.json`'s `pass_at.4`, the config's `training.max_steps`; None if absent."""
        if key in self.summary:
            return self.summary[key]
        numbers = leaves(self.metrics)
        for name in (f"{key}.value", key):
            if name in numbers:
                return numbers[name]
        return self.config.get(key)

    def to_json(self) -> JsonObject:
        """Everything, for `--json`."""
        return self.summary | {"folder": str(self.run.path), "metrics": self.metrics, "config": self.run.read_config()}


def origin(run: RunFolder) -> str | None:
    """The run whose training or predictions a run uses, and how their configs differ; None if it uses only its own."""
    records = [run.stages().get(stage, {}) for stage in ("predict", "train")]
    folders = [(run.path / record["folder"]).resolve() for record in records if "folder" in record]
    others = [RunFolder(folder) for folder in folders if not folder.is_relative_to(run.path.resolve())]
    if not others:
        return _start(run)
    base = others[0]
    before, now = ({k: v for k, v in one.read_config().items() if k not in WHERE} for one in (base, run))
    differing = [f"{key}={value}" for key, (_, value) in compare("", before, now).different.items()]
    shown = ", ".join(differing[:SHOWN]) + (f", … {len(differing) - SHOWN} more" if len(differing) > SHOWN else "")
    return f"{base.path.parent.name}/{base.path.name[:4]}…" + (f": {shown}" if shown else "")


def _start(run: RunFolder) -> str | None:
    """The run from whose model this one started, or which it asks about other data."""
    starts = starts_of(run)
    if not starts:
        return None
    trained = value_at(run.read_config(), "training.max_steps") != 0
    what = "trained further" if trained else f"asked {value_at(run.read_config(), 'dataset.name')}"
    return f"{starts[0].path.parent.name}/{starts[0].path.name[:4]}…: {what}"


def select(root: Path, filters: Sequence[str], sort: str, reverse: bool) -> list[RunRecord]:
    """The runs below `root` that pass every filter, sorted; those without the value come last.

    Raises InputError: a filter is malformed, or no run has the key.
    """
    found = [RunRecord(run) for run in all_runs(root)]
    wanted = [_parsed(text) for text in filters]
    keys = {key for key, _, _ in wanted} | {sort}
    for key in keys if found else ():
        if all(record.value(key) is None for record in found) and key not in found[0].summary:
            short = ", ".join(found[0].summary)
            raise InputError(f"{key!r}: no run has it; there are: {short}, keys of metrics.json, keys of the config")
    kept = [record for record in found if all(_passes(record.value(key), sign, word) for key, sign, word in wanted)]
    known = [record for record in kept if record.value(sort) is not None]
    known.sort(key=lambda record: _comparable(record.value(sort)), reverse=reverse)
    return known + [record for record in kept if record.value(sort) is None]


def _parsed(text: str) -> tuple[str, str, str]:
    found = FILTER.fullmatch(text)
    if found is None:
        raise InputError(f"{text!r} is not a filter; the form is KEY=VALUE, with one of {' '.join(OPERATORS)}")
    return found[1], found[2], found[3]


def _passes(value: Any, sign: str, word: str) -> bool:
    if value is None:
        return (sign == "=" and word in ("null", "")) or (sign == "!=" and word not in ("null", ""))
    if isinstance(value, bool):
        value = str(value).lower()
    try:
        return OPERATORS[sign](float(value), float(word))
    except (ValueError, TypeError):  # no numbers; `~` looks into text
        return OPERATORS[sign](str(value), word)


def _comparable(value: Any) -> tuple[int, float, str]:
    """Sort key: numbers before text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))
