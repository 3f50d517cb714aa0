"""Members of a sweep: a line for each change, and all of them ranked, as rows of a table and as `ranking.json`.

Members that differ only in their seeds are one setting, and settings are ranked, by the mean of their members. Settings
that cannot be told apart share a rank (`comparison.ranks` has the rule); within a rank they stand in order of their
values, equal ones of their validation losses. The test is the paired one on the test items; where there is none (a
metric that items do not have), Welch's t-test of the seeds, or whether intervals overlap. Where nothing of these is
there either, no test can be made, and nothing is told apart.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from boltons.iterutils import bucketize

from tunix_rt.comparison.pairs import SEEDS
from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, read_json, to_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.log import MetricsLog
from tunix_rt.runs.rates import Interval, interval, lookup, shown
from tunix_rt.runs.sweep import MemberRecord, SweepFolder
from tunix_rt.terminal import say

if TYPE_CHECKING:
    from tunix_rt.comparison.ranks import Apart


def label(sweep: SweepFolder, values: dict[str, str]) -> str:
    """What distinguishes a member from the others of its sweep."""
    keys: Sequence[str] = sweep.status().get("varying") or list(values)
    return " ".join(f"{key}={short(values[key])}" for key in keys if key in values) or "the only one"


def short(text: str) -> str:
    """A number of seventeen digits, cut to five; short numbers and text unchanged."""
    try:
        return text if len(text) < 8 else f"{float(text):.5g}"
    except ValueError:
        return text


def announce(sweep: SweepFolder, record: MemberRecord) -> None:
    """Print the current state of a member: one line, with what it varies and its folder."""
    who = f"member {label(sweep, record.values)}"
    where = f" ({record.folder})" if record.folder else ""
    if record.state == "running":
        say(f"{who}: running{where}; prints to {os.path.relpath(sweep.log(record.key))}")
    elif record.state == "finished":
        metric = str(sweep.status()["metric"])
        try:
            result = f"{metric} {shown(lookup(read_json(record.run.metrics), metric))}"
        except InputError as error:  # a misspelt metric concerns all members and is reported at the end
            result = str(error).splitlines()[0]
        say(f"{who}: finished, {result}{where}")
    elif record.state == "failed":
        say(f"error: {who} failed{where}, the others go on: {record.reason}")
    else:
        say(f"{who}: {record.state}{where}: {record.reason}")


@dataclass(frozen=True)
class Member:
    """One member with its results."""

    record: MemberRecord
    metrics: JsonObject | None = None
    """`metrics.json`; None if it did not finish."""
    validation_loss: float = math.inf
    """The last validation loss, which orders settings of equal value."""
    questions: str | None = None
    """Digest of its prompts and of the right answers; None if that is not recorded."""

    @classmethod
    def of(cls, record: MemberRecord) -> Member:
        """Built from its record and its run folder."""
        if record.state != "finished":
            return cls(record)
        run = record.run
        trained = RunFolder(run.model.parent)  # a sibling, if that one did the training
        losses = MetricsLog(trained.metrics_log, trained.timings_log, exact=False).series("eval/loss")
        questions = read_json(run.data).get("questions", {}).get(run.read_config()["generation"]["split"])
        return cls(record, read_json(run.metrics), losses[-1][1] if losses else math.inf, questions)

    @property
    def setting(self) -> dict[str, str]:
        """What it varies, without seeds."""
        return {key: value for key, value in self.record.values.items() if key not in SEEDS}


@dataclass(frozen=True)
class Setting:
    """Finished members that differ only in their seeds."""

    members: tuple[Member, ...]
    values: tuple[float, ...]
    """The metric by which it is ranked, of each member."""

    @property
    def value(self) -> float:
        return statistics.fmean(self.values)

    @property
    def validation_loss(self) -> float:
        return statistics.fmean(member.validation_loss for member in self.members)

    def interval(self, metric: str) -> Interval | None:
        """Of a single member, the 95 % interval of its rate."""
        return interval(self.members[0].metrics or {}, metric) if len(self.members) == 1 else None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A member with the rank of its setting."""

    member: Member
    rank: int | None
    """From 1; None if it did not finish."""
    leading: bool
    """Whether its setting has the first rank."""
    value: float | None = None
    """The metric by which it is ranked."""
    interval: Interval | None = None
    """The 95 % interval of that, if it is a rate."""
    setting: Setting | None = None
    tested: bool = True
    """Whether there is a test for every two settings."""


def comparable(members: Sequence[Member]) -> bool:
    """Whether the finished members answered the same questions, as far as recorded."""
    return len({member.questions for member in members if member.metrics is not None}) < 2


def title(experiment: str, members: Sequence[Member], metric: str) -> str:
    """The title of the table."""
    unlike = "" if comparable(members) else "; NOT comparable: their questions differ (dataset)"
    return f"{experiment}: {len(members)} members, ranked by {metric}{unlike}"


def varying(members: Sequence[dict[str, str]]) -> list[str]:
    """The override keys whose values differ between members."""
    keys = dict.fromkeys(key for values in members for key in values)
    return [key for key in keys if len({values.get(key) for values in members}) > 1]


def ranked(members: Sequence[Member], metric: str, direction: str) -> list[Ranked]:
    """Best first; those that did not finish come last, in their original order.

    Raises InputError if the metric is not in `metrics.json`.
    """
    from tunix_rt.comparison.ranks import ranks

    sign = -1.0 if direction == "maximize" else 1.0
    done = [member for member in members if member.metrics is not None]
    groups = bucketize(done, lambda member: to_json(member.setting)).values()
    settings = [Setting(tuple(group), tuple(lookup(m.metrics or {}, metric) for m in group)) for group in groups]
    settings.sort(key=lambda setting: (sign * setting.value, setting.validation_loss))
    apart, tested = _apart(settings, metric, comparable(members))
    placed = [
        Ranked(member, rank, rank == 1, value, interval(member.metrics or {}, metric), setting, tested)
        for setting, rank in zip(settings, ranks(apart), strict=True)
        for member, value in zip(setting.members, setting.values, strict=True)
    ]
    return placed + [Ranked(member, None, False) for member in members if member.metrics is None]


def _apart(settings: Sequence[Setting], metric: str, alike: bool) -> tuple[Apart, bool]:
    """Which settings differ by more than chance, none if they were not asked the same; and whether there is a test."""
    from tunix_rt.comparison.ranks import corrected, told_apart

    if len(settings) < 2 or not alike:
        return corrected(len(settings), [1.0] * math.comb(len(settings), 2)), True
    try:
        return told_apart([[member.record.run for member in setting.members] for setting in settings], metric), True
    except InputError:  # a metric that items do not have, members that were judged by different rules
        found = [_p_value(a, b, metric) for a, b in combinations(settings, 2)]
        return corrected(len(settings), [1.0 if p is None else p for p in found]), None not in found


def _p_value(first: Setting, other: Setting, metric: str) -> float | None:
    """Without test items: Welch's test of several seeds; of single members 0 or 1, by whether their intervals overlap.
    None: a number without an interval, of which no difference can be tested."""
    if first.value == other.value:
        return 1.0
    if min(len(first.members), len(other.members)) > 1:
        from scipy.stats import ttest_ind

        found = float(ttest_ind(first.values, other.values, equal_var=False).pvalue)
        return 0.0 if math.isnan(found) else found
    spans = first.interval(metric), other.interval(metric)
    if spans[0] is None or spans[1] is None:
        return None
    return 0.0 if spans[0].low > spans[1].high or spans[1].low > spans[0].high else 1.0


def verdict(found: Sequence[Ranked], values: str) -> str:
    """A line that says what can be concluded from the ranking; `values`: what the first member varied."""
    first = _settings([place for place in found if place.leading])
    if not first:
        return "no member finished"
    if not comparable([place.member for place in found]):
        return "none of them is best: they were not asked the same questions (one dataset.seed for all compares)"
    if len(first) > 1 and not found[0].tested:
        return (
            f"there is no test for this metric (items do not have it, and it has no interval): {len(first)} settings "
            "(rank 1=) are not told apart, and none of them is best; several seeds each can be tested"
        )
    if len(first) > 1:
        return f"{len(first)} settings (rank 1=) cannot be told apart by this test at 95 %: none of them is best"
    everything = _settings([place for place in found if place.rank is not None])
    if len(everything) == 1:
        number = len(first[0].members)
        mean = f"one setting, {number} seeds, {shown(first[0].value)} on average: nothing to rank"
        return f"the only result: {values}" if number == 1 else mean
    best = first[0].members[0].setting
    told = " ".join(f"{key}={short(best[key])}" for key in varying([s.members[0].setting for s in everything]))
    return f"best: {told or values}"


def _settings(places: Sequence[Ranked]) -> list[Setting]:
    """Each once, in order."""
    return list({id(place.setting): place.setting for place in places if place.setting is not None}.values())


def rows(found: Sequence[Ranked], metric: str) -> tuple[list[str], list[list[str]]]:
    """Column names and rows: rank, what varied, the metric with its 95 % interval (of several seeds: their mean, and
    the lowest and highest), stop rate, run or why there is none. `=` after a rank: shared by several settings. Seeds of
    one setting alone have no rank.
    """
    keys, settings = varying([place.member.record.values for place in found]), _settings(found)
    repeated = len(settings) > 1 and any(len(setting.members) > 1 for setting in settings)
    if len(settings) == 1 and len(settings[0].members) > 1:
        each = zip(settings[0].members, settings[0].values, strict=True)
        settings = [Setting((member,), (value,)) for member, value in each]
    keys = [key for key in keys if not (repeated and key in SEEDS)]
    lines = [_row(found, setting, metric, keys, repeated) for setting in settings]
    for record in (place.member.record for place in found if place.setting is None):
        why = [*filter(None, [record.folder]), *(record.reason or "").splitlines()[:1]]
        changed = [short(record.values.get(key, "")) for key in keys]
        lines.append(["-", *changed, *([""] if repeated else []), record.state, "", "", " ".join(why)])
    spread = "range of seeds" if repeated else "95 % interval"
    return ["rank", *keys, *(["seeds"] if repeated else []), metric, spread, "stop rate", "run"], lines


def _row(found: Sequence[Ranked], setting: Setting, metric: str, keys: Sequence[str], repeated: bool) -> list[str]:
    rank = next((place.rank for place in found if place.setting is setting), "")
    shared = len(_settings([place for place in found if place.rank == rank])) > 1
    first, more = setting.members[0].record, len(setting.members) - 1
    between = setting.interval(metric)
    ends = (between.low, between.high) if between else (min(setting.values), max(setting.values))
    spread = f"[{shown(ends[0])}, {shown(ends[1])}]" if between or more else ""
    stop = statistics.fmean(lookup(member.metrics or {}, "stop_rate") for member in setting.members)
    return [
        f"{rank}{'=' if shared else ''}",
        *(short(first.values.get(key, "")) for key in keys),
        *([str(more + 1)] if repeated else []),
        shown(setting.value),
        spread,
        shown(stop),
        f"{first.folder or ''}{f' and {more} more' if more else ''}",
    ]


def ranking(found: Sequence[Ranked]) -> list[JsonObject]:
    """The contents of `ranking.json`: a line for each member, best first, with the rank and mean of its setting."""
    lines: list[JsonObject] = []
    for place in found:
        record, between = place.member.record, place.interval
        line: JsonObject = {"rank": place.rank, "leading": place.leading, "values": record.values}
        line |= {"setting": place.member.setting, "setting_value": place.setting and place.setting.value}
        line |= {"state": record.state, "folder": record.folder, "value": place.value}
        line |= {"interval": None if between is None else [between.low, between.high]}
        lines.append(line | {"metrics": place.member.metrics, "reason": record.reason})
    return lines
