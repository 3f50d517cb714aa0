"""What all contestants share: a composed config, prepared data and the initial weights.

In: overrides as on the command line of `tunix_rt`. Out: the config and `PreparedData`, prepared once under `data/`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks import arithmetic
from benchmarks.race import THREADS
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.load import check, compose
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.inputs import prepared_data
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking.registry import ModelStore

SHEETS = Path("data/benchmarks/arithmetic.jsonl")
NUM_SHEETS = 2000
DEFAULTS = (
    "name=benchmark",
    "model=mini",
    "tokenizer=bpe",
    "format=lines",
    "dataset=jsonl",
    "dataset.name=worksheets",
    f"dataset.source.train.path={SHEETS}",
    "dataset.split={validation: 0.0, test: 0.1}",
    "dataset.on_duplicate=first",
    "dataset.on_overlap=allow",
    "schedule=constant",
    "optimizer.learning_rate=1e-3",
    "training.row_length=null",
    "hardware=cpu",
    f"hardware.threads={THREADS}",
    "tracking=none",
)
"""The model `mini` (10 M parameters) on worksheets. Later overrides win."""

QUICK = (
    "model=nano",
    "model.source.max_position_embeddings=1024",
    "tokenizer.vocab_size=300",
    "dataset.limit.train=40",
)
"""A model and data as small as they can be: with `--quick`."""
QUICK_HELP = "tiny sizes: that it runs, not how fast"


@dataclass(frozen=True, slots=True)
class Workload:
    """A config as overrides, so it is picklable: each process composes it and opens the data by itself."""

    overrides: tuple[str, ...]

    @classmethod
    def of(cls, *overrides: str) -> Workload:
        """DEFAULTS, followed by `overrides`."""
        return cls((*DEFAULTS, *overrides))

    @property
    def config(self) -> ExperimentConfig:
        """The checked config."""
        return check(compose(self.overrides))

    def on(self, backend: str) -> Workload:
        """The same workload on another backend: data and weights do not depend on it."""
        return Workload((*self.overrides, f"backend={backend}"))

    def prepared(self) -> PreparedData:
        """The prepared data, created if missing."""
        config = self.config
        if config.dataset.name == "worksheets" and not SHEETS.exists():
            arithmetic.write(SHEETS, NUM_SHEETS, seed=0)
        return prepared_data(config, ModelStore(config.tracking.uri))


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """The arguments that all benchmarks share."""
    made = argparse.ArgumentParser(description=description.split("\n\n")[0])
    made.add_argument("--rounds", type=int, default=rounds, help="laps of each contestant (default %(default)s)")
    made.add_argument(
        "--backends",
        type=backends_in,
        default=installed(),
        metavar="A,B",
        help="ours, by comma (default: those installed)",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write every number to this file")
    made.add_argument(
        "overrides",
        nargs="*",
        help="other data or model, as for tunix_rt: dataset=jsonl dataset.name=mine dataset.source.train.path=…",
    )
    return made


def table_parser(description: str) -> argparse.ArgumentParser:
    """The arguments of benchmarks that are no races: each measures by itself what it makes a table of."""
    made = argparse.ArgumentParser(description=description.split("\n\n")[0])
    made.add_argument(
        "--backends",
        type=backends_in,
        default=[name for name in installed() if name != "tunix"],
        metavar="A,B",
        help="by comma (default: those installed)",
    )
    made.add_argument("--quick", action="store_true", help=QUICK_HELP)
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write what is shown to this file")
    return made


def parse(made: argparse.ArgumentParser, arguments: list[str] | None, quick: dict[str, int]) -> argparse.Namespace:
    """The arguments; with `--quick` those of `quick` instead, one round, and QUICK before the overrides."""
    made.add_argument("--quick", action="store_true", help=QUICK_HELP)
    given = made.parse_args(arguments)
    if given.quick:
        vars(given).update(quick, rounds=1, overrides=[*QUICK, *given.overrides])
    return given


def installed() -> list[str]:
    """The backends whose framework is installed."""
    return sorted(name for name, facts in BACKENDS.items() if find_spec(facts.package) is not None)


def backends_in(text: str) -> list[str]:
    """The names in a value of `--backends`, `A,B`. Raises ArgumentTypeError for one that is unknown."""
    names = text.split(",")
    if unknown := sorted(set(names) - set(BACKENDS)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: unknown; there are {', '.join(sorted(BACKENDS))}")
    return names
