"""Which runs stand on which side of a comparison: named runs, or those of a sweep or experiment, grouped by setting.

A setting is a config without its seeds. Runs of one setting with different seeds are repetitions of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunix_rt.comparison.pairs import SEEDS
from tunix_rt.config.identity import entering
from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject, digest
from tunix_rt.runs.diff import compare, leaves
from tunix_rt.runs.folder import RunFolder, all_runs, find_run
from tunix_rt.runs.sweep import find_sweep

STEPS = "training.max_steps"
OF_TRAINING = ("training.", "optimizer.", "schedule.", "generation.baseline")
"""Where the keys begin that change no result if nothing is trained."""
SHOWN = 8
"""Settings that a message lists."""


@dataclass(frozen=True, slots=True)
class Side:
    """Runs of one setting, each with other seeds."""

    runs: tuple[RunFolder, ...]
    repeated: tuple[RunFolder, ...] = ()
    """Runs that were left out: same setting and seeds as one of `runs`, so they say nothing new."""

    @property
    def name(self) -> str:
        first = self.runs[0].name
        return first if len(self.runs) == 1 else f"{first} and {len(self.runs) - 1} more"


def sides_of(root: Path, words: Sequence[str], others: Sequence[str]) -> tuple[Side, Side]:
    """The two sides that a user means by `words`, and by `others` if both sides are named.

    Without `others`, two words are a side each, and any other number of runs is grouped by setting, of which there must
    be two. A word is a run, a sweep, or an experiment, which stands for all of its finished runs. Raises InputError.
    """
    if others or len(words) == 2:
        left, right = (words, others) if others else (words[:1], words[1:])
        return _apart(_side(runs_of(root, left)), _side(runs_of(root, right)))
    groups = settings(runs_of(root, words))
    if len(groups) != 2:
        raise InputError(f"{' '.join(words)}: {_not_two(groups)}")
    return groups[0], groups[1]


def _apart(left: Side, right: Side) -> tuple[Side, Side]:
    """Raise InputError if a run stands on both sides."""
    known = {run.path.resolve() for run in left.runs}
    both = [run.name for run in right.runs if run.path.resolve() in known]
    if both and len(left.runs) == len(right.runs) == 1:
        raise InputError(f"both sides are the same run, {both[0]}; name another to compare with")
    if both:
        raise InputError(f"{', '.join(both)}: on both sides; a run can be on one")
    return left, right


def _not_two(groups: Sequence[Side]) -> str:
    """Why runs are not two sides, and what to do."""
    if not groups:
        return "none of its runs is finished"
    if len(groups) == 1:
        return "all runs are of one setting; name another to compare with"
    return f"{_listed(groups)}\nname two sides: compare RUN … --with RUN …"


def runs_of(root: Path, words: Sequence[str]) -> list[RunFolder]:
    """The runs that words mean, each once. Raises InputError."""
    found = [run for word in words for run in _meant(root, word)]
    return list({run.path.resolve(): run for run in found}.values())


def _meant(root: Path, word: str) -> list[RunFolder]:
    if (folder := find_sweep(root, word)) is not None:
        return [record.run for record in folder.records() if record.state == "finished"]
    of_experiment = [run for run in all_runs(root) if run.path.parent.name == word]
    return [run for run in of_experiment if run.status().get("state") == "finished"] or [find_run(root, word)]


def _side(runs: Sequence[RunFolder]) -> Side:
    """The only setting of some runs. Raises InputError if there are others."""
    groups = settings(runs)
    if not groups:
        raise InputError("a side has no finished run")
    if len(groups) != 1:
        raise InputError(f"one side is one setting, repeated with other seeds, but here are {_listed(groups)}")
    return groups[0]


def settings(runs: Sequence[RunFolder]) -> list[Side]:
    """Runs grouped by their config without seeds, in the order of the first of each."""
    groups = _grouped(runs, lambda config: _without_seeds(config, [*SEEDS, "name"]))
    return [_once(group) for group in groups]


def _grouped(runs: Sequence[RunFolder], part: Callable[[JsonObject], Any]) -> list[list[RunFolder]]:
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault(digest(part(entering(run.read_config()))), []).append(run)
    return list(groups.values())


def _once(runs: Sequence[RunFolder]) -> Side:
    alike = _grouped(runs, lambda config: config)
    repeated = [run for group in alike for run in group[1:]]
    return Side(tuple(group[0] for group in alike), tuple(repeated))


def _without_seeds(config: JsonObject, keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in leaves(config).items() if key not in keys}


def _listed(groups: Sequence[Side]) -> str:
    """What distinguishes settings, each with its first run."""
    configs = [_without_seeds(entering(group.runs[0].read_config()), SEEDS) for group in groups]
    trained = [config for config in configs if config.get(STEPS) != 0]
    keys = dict.fromkeys(key for config in configs for key in config)
    deciding = {key: trained if key.startswith(OF_TRAINING) and key != STEPS else configs for key in keys}
    varied = [key for key in keys if _varies(deciding[key], key)]
    lines = [
        f"  {group.name}: {' '.join(_values(config, varied)[:4])}"
        for group, config in zip(groups[:SHOWN], configs, strict=False)
    ]
    more = f"\n  … {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
    return f"{len(groups)} settings:\n" + "\n".join(lines) + more


def _values(config: dict[str, Any], varied: Sequence[str]) -> list[str]:
    """`KEY=VALUE` of the keys that vary; of a setting that trains nothing, without those that then change no result."""
    if config.get(STEPS) != 0:
        return [f"{key}={config.get(key)}" for key in varied]
    rest = [key for key in varied if not key.startswith(OF_TRAINING)]
    return ["nothing trained", *(f"{key}={config.get(key)}" for key in rest)]


def _varies(configs: Sequence[dict[str, Any]], key: str) -> bool:
    return any(config.get(key) != configs[0].get(key) for config in configs)


def changes(left: RunFolder, right: RunFolder) -> dict[str, tuple[Any, Any]]:
    """What differs in two configs and may change a result: key → (left, right)."""
    return compare("config", entering(left.read_config()), entering(right.read_config())).different


def trained_apart(side: Side) -> bool:
    """Whether the runs of a side are trainings with different seeds, and not only answers sampled with them."""
    configs = [leaves(run.read_config()) for run in side.runs]
    return _varies(configs, "training.seed" if "training.seed" in configs[0] else "seed")
