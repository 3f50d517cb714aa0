"""A search space in Hydra's syntax: `interval(a, b)`, `range(a, b, step)`, `choice(x, y)`, `tag(log, …)`, `int(…)`.

They mean the same as everywhere in Hydra: a range excludes its second number, an interval includes both ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunix_rt.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True, slots=True)
class Space:
    """The fixed overrides of every trial, and what is searched."""

    fixed: tuple[str, ...]
    """Overrides of every trial."""
    searched: dict[str, BaseDistribution]
    prefixes: dict[str, str]
    """`++` or nothing: the prefix of each searched key."""
    declared: dict[str, str]
    """The override of each searched key, as it was written."""

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of the trial with these values."""
        chosen = [f"{self.prefixes[key]}{key}={_text(values[key])}" for key in self.searched]
        return [*self.fixed, *chosen]


def _written(override: Any) -> str:
    return str(override.input_line).partition("=")[2]


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def space_of(params: Mapping[str, Any], arguments: Sequence[str]) -> Space:
    """Built from `hydra.sweeper.params` and the command line, which wins. Raises ConfigError if nothing is searched."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    words = [f"{key}={value}" for key, value in params.items()]
    parsed = OverridesParser.create().parse_overrides([*words, *arguments])
    last = {str(override.key_or_group): override for override in parsed}
    searched = {key: _distribution(key, override) for key, override in last.items() if override.is_sweep_override()}
    if not searched:
        raise ConfigError(
            "hydra.sweeper.params: nothing to search, e.g. -m 'optimizer.learning_rate=interval(1e-4,1e-2)'"
        )
    fixed = [str(override.input_line) for key, override in last.items() if key not in searched]
    prefixes = {key: last[key].get_key_element().removesuffix(key) for key in searched}
    declared = {key: _written(last[key]) for key in searched}
    return Space(tuple(fixed), searched, prefixes, declared)


def _distribution(key: str, override: Any) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value: Any = override.value()
    try:
        if override.is_interval_sweep():
            log = "log" in value.tags
            whole = isinstance(value.start, int) and isinstance(value.end, int)
            kind = IntDistribution if whole else FloatDistribution
            return kind(value.start, value.end, log=log)
        if override.is_range_sweep():
            steps = list(value.range())
            if all(isinstance(step, int) for step in steps):
                return IntDistribution(steps[0], steps[-1], step=int(value.step))
            return FloatDistribution(float(steps[0]), float(steps[-1]), step=float(value.step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as error:
        raise ConfigError(f"hydra.sweeper.params.{key}: {_written(override)}: {error}") from error
