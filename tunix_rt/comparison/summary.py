"""Two runs in five lines: what was changed, what came of it, whether that is beyond chance, and whether data and code
are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.comparison.compare import Comparison, compared
from tunix_rt.comparison.pairs import SEEDS
from tunix_rt.comparison.sides import Side, changes
from tunix_rt.errors import DataError, InputError
from tunix_rt.files import read_record, to_json
from tunix_rt.runs.diff import Section, value_at
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import cut

SHOWN = 4
COMMIT = 9
DERIVED = ("counts", "digest", "prepared", "sources")
"""What differs of data wherever a split does."""
CODE_WORDS = {
    "git.": "uncommitted changes",
    "source_sha256": "source of tunix_rt",
    "lock_sha256": "lock file",
    "packages": "packages",
}
LONGEST = 40
"""Differing keys that a line names, and characters of a value."""


def summary(left: RunFolder, right: RunFolder, sections: Sequence[Section]) -> dict[str, str]:
    """Name → text of each line; `sections`: those of `runs.diff.side_by_side`. Raises DataError: a damaged record."""
    found: Comparison | None = None
    try:
        found = compared((Side((left,)), Side((right,))))
        verdict = found.sentence()
    except InputError as reason:
        verdict = f"cannot be compared: {reason}"
    by_name = {section.name: section for section in sections}
    return {
        "changed": _changed(left, right),
        "accuracy": _result(left, right, found),
        "verdict": verdict,
        "data": _data(by_name["data"], None if found is None else value_at(left.read_config(), "generation.split")),
        "code": _code(by_name["code"]),
    }


def _changed(left: RunFolder, right: RunFolder) -> str:
    """Config keys that may change a result; of seeds that follow `seed`, only that one."""
    found = changes(left, right)
    followers = [key for key in SEEDS[1:] if found.get(key) == found.get("seed")]
    shown = [
        f"{key}: {cut(str(a), LONGEST)} → {cut(str(b), LONGEST)}"
        for key, (a, b) in found.items()
        if key not in followers
    ]
    return _some(shown) or "nothing that changes a result"


def _result(left: RunFolder, right: RunFolder, found: Comparison | None) -> str:
    values = [_accuracy(run) for run in (left, right)]
    text = " → ".join("none" if value is None else f"{100 * value:.1f} %" for value in values)
    if found is None:
        return text
    low, high = (found.metric.signed(end) for end in found.estimate.interval())
    return f"{text}: {found.metric.signed(found.estimate.difference)} {found.metric.unit} [{low}, {high}]"


def _accuracy(run: RunFolder) -> float | None:
    """The recorded rate; None if there is none."""
    rate = read_record(run.metrics).get("accuracy", {})
    if not isinstance(rate, dict) or not isinstance(rate.get("value"), float | int | None):
        raise DataError(f"{run.metrics}: accuracy is {to_json(rate)}, expected a rate with its value")
    return rate.get("value")


def _data(section: Section, asked: str | None) -> str:
    """Which splits, or what else, differs; `asked`: the split of which both were asked the same questions."""
    splits = [key.split(".")[1] for key in section.different if key.startswith("splits.")]
    others = [key.split(".")[0] for key in section.different if not key.startswith("splits.")]
    names = dict.fromkeys([*splits, *(name for name in others if name not in DERIVED or not splits)])
    names.pop(asked or "", None)
    if not names:
        return "the same" if not section.different else "the same questions"
    return f"{'' if asked is None else 'the same questions; '}other {', '.join(names)}"


def _code(section: Section) -> str:
    """The commits, and in a word what else differs."""
    words = []
    for key, (a, b) in section.different.items():
        if key == "git.commit":
            words.append(f"commit {str(a)[:COMMIT]} → {str(b)[:COMMIT]}")
        else:
            words.append(next((word for start, word in CODE_WORDS.items() if key.startswith(start)), key))
    return f"other {', '.join(dict.fromkeys(words))}" if words else "the same"


def _some(shown: Sequence[str]) -> str:
    more = f"; {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return "; ".join(shown[:SHOWN]) + more
