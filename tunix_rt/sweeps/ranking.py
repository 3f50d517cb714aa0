"""Members of a sweep, ranked by the declared metric, as rows of a table and as `ranking.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.files import JsonObject, read_json
from tunix_rt.runs.diff import read_config
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.rates import interval, lookup
from tunix_rt.runs.sweep import MemberRecord, MemberState
from tunix_rt.sweeps.announce import shown


@dataclass(frozen=True, slots=True)
class Member:
    """One member: what it changed, and how it ended."""

    values: dict[str, str]
    """Its overrides, `optimizer.learning_rate` → `1e-3`."""
    state: MemberState
    folder: str | None
    metrics: JsonObject | None
    """`metrics.json`; None where it did not finish."""
    reason: str | None
    questions: str | None = None
    """Digest of what it was asked and of the right answers; None where that is not recorded."""

    @classmethod
    def of(cls, record: MemberRecord) -> Member:
        """From its record, and what is in its run folder."""
        if record.state != "finished" or record.folder is None:
            return cls(record.values, record.state, record.folder, None, record.reason)
        run = RunFolder(Path(record.folder))
        split = read_config(run)["generation"]["split"]
        questions = read_json(run.data).get("questions", {}).get(split)
        return cls(record.values, record.state, record.folder, dict(read_json(run.metrics)), record.reason, questions)


def title(experiment: str, members: Sequence[Member], metric: str) -> str:
    """What stands above the table; that results cannot be compared where members were asked different questions."""
    tests = len({member.questions for member in members if member.metrics is not None})
    unlike = f"; NOT comparable: asked {tests} different sets of questions" if tests > 1 else ""
    return f"{experiment}: {len(members)} members, ranked by {metric}{unlike}"


def varying(members: Sequence[dict[str, str]]) -> list[str]:
    """The overrides' keys whose values differ between members."""
    keys = dict.fromkeys(key for values in members for key in values)
    return [key for key in keys if len({values.get(key) for values in members}) > 1]


def ranked(members: Sequence[Member], metric: str, direction: str) -> list[Member]:
    """Best first; those that did not finish last, in their own order."""
    sign = -1.0 if direction == "maximize" else 1.0
    done = [member for member in members if member.metrics is not None]
    others = [member for member in members if member.metrics is None]
    return sorted(done, key=lambda member: sign * lookup(member.metrics or {}, metric)) + others


def rows(members: Sequence[Member], metric: str, direction: str) -> tuple[list[str], list[list[str]]]:
    """Column names and rows: rank, what varied, the metric with its 95 % interval, stop rate, run or why there is none.

    Raises InputError where the metric is none of `metrics.json`.
    """
    keys = varying([member.values for member in members])
    found: list[list[str]] = []
    for rank, member in enumerate(ranked(members, metric, direction), start=1):
        changed = [_short(member.values.get(key, "")) for key in keys]
        if member.metrics is None:
            reason = (member.reason or "").splitlines()[:1]
            found.append(["-", *changed, member.state, "", "", " ".join([*filter(None, [member.folder]), *reason])])
            continue
        between = interval(member.metrics, metric)
        spread = f"[{shown(between.low)}, {shown(between.high)}]" if between else ""
        stops = shown(lookup(member.metrics, "stop_rate"))
        found.append([str(rank), *changed, shown(lookup(member.metrics, metric)), spread, stops, member.folder or ""])
    return ["rank", *keys, metric, "95 % interval", "stop rate", "run"], found


def _short(text: str) -> str:
    """A number of seventeen digits with five."""
    try:
        return text if len(text) < 8 else f"{float(text):.5g}"
    except ValueError:
        return text


def ranking(members: Sequence[Member], metric: str, direction: str) -> list[JsonObject]:
    """The contents of `ranking.json`, best first. Raises InputError where the metric is none of `metrics.json`."""
    found: list[JsonObject] = []
    for member in ranked(members, metric, direction):
        line: JsonObject = {"values": member.values, "state": member.state, "folder": member.folder}
        between = None if member.metrics is None else interval(member.metrics, metric)
        value = None if member.metrics is None else lookup(member.metrics, metric)
        spread = None if between is None else [between.low, between.high]
        found.append(line | {"value": value, "interval": spread, "metrics": member.metrics, "reason": member.reason})
    return found
