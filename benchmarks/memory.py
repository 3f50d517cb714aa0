"""Memory as `plan` foresees it, beside what a run really takes at most above what is resident after import.

Each run is a process of its own: it imports what a run imports, looks at its resident memory, trains for a few steps
and predicts for a few prompts, as the stages do, and looks at the largest resident memory it ever had. Programs are
compiled anew, as in a first run.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import psutil

from benchmarks import race
from benchmarks.workload import parser
from tunix_rt.config.load import check, compose
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.inputs import cache_folder, input_digests, prepared_data
from tunix_rt.terminal import out, table
from tunix_rt.tracking.registry import ModelStore

EXPERIMENTS = ("quickstart", "smollm2_arithmetic", "smollm2_traces", "gsm8k")
"""The others are quickstarts."""
SHORT = (
    "tracking=none",
    "hardware=cpu",
    f"hardware.threads={race.THREADS}",
    "generation.baseline=false",
    "schedule.warmup_steps=0",
    "dataset.limit.validation=16",
    "training.num_epochs=null",
)
"""Steps and prompts beyond the first ones take no more."""
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Peaks:
    """Bytes above what is resident after import."""

    foreseen: int
    measured: int

    @property
    def off(self) -> float:
        """What was foreseen, beyond what was measured, as a share of that."""
        return self.foreseen / self.measured - 1

    @property
    def within(self) -> bool:
        """Whether the two are as near as promised: within 15 % or 64 MiB."""
        return abs(self.foreseen - self.measured) <= max(0.15 * self.measured, 64 * MEBIBYTE)


def config_of(overrides: tuple[str, ...]) -> ExperimentConfig:
    """The config, checked."""
    return check(compose(overrides))


def foresee(overrides: tuple[str, ...]) -> int:
    """The peak of the plan, in a process of its own."""
    from tunix_rt.plan.make import make

    return make(config_of(overrides), overrides, None, measuring=False).estimate.peak


def measure(overrides: tuple[str, ...], place: str) -> int:
    """Train and predict in this process; the data are prepared."""
    os.environ["XDG_CACHE_HOME"] = f"{place}/cache"
    import tunix_rt.experiment  # noqa: F401 (what a run imports)
    from tunix_rt.backends import registry
    from tunix_rt.engine.context import RunContext, chain_of
    from tunix_rt.engine.stages import predict_request, train_request
    from tunix_rt.runs.folder import RunFolder
    from tunix_rt.runs.interrupt import watching
    from tunix_rt.stages.predict import predict
    from tunix_rt.stages.train import train

    config, run = config_of(overrides), RunFolder(Path(place) / "run")
    store = ModelStore(config.tracking.uri)
    digests = input_digests(config, store)
    run.path.mkdir()
    registry.create(config.backend, config.hardware, cache_folder())
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the largest resident memory is counted from here
    with watching(run.path) as interrupt:
        context = RunContext(config, digests, chain_of(config, digests), run, interrupt, store)
        train(train_request(context))
        predict(predict_request(context))
    return _largest() - before


def _largest() -> int:
    """Largest resident memory of this process, bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def compare(overrides: tuple[str, ...]) -> Peaks:
    """Both, each in a fresh process."""
    config = config_of(overrides)
    prepared_data(config, ModelStore(config.tracking.uri))
    with tempfile.TemporaryDirectory() as place:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            foreseen = pool.submit(foresee, overrides).result()
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            return Peaks(foreseen, pool.submit(measure, overrides, place).result())


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.memory`."""
    made = parser(__doc__ or "", rounds=1)
    made.add_argument("--experiments", default=",".join(EXPERIMENTS), metavar="A,B", help="default: %(default)s")
    made.add_argument("--steps", type=int, default=6, help="updates (default %(default)s)")
    made.add_argument("--prompts", type=int, default=16, help="prompts that are answered (default %(default)s)")
    given = made.parse_args(arguments)
    sizes = (f"training.max_steps={given.steps}", f"dataset.limit.test={given.prompts}")
    peaks: dict[tuple[str, str], Peaks] = {}
    for name, backend in product(given.experiments.split(","), given.backends):
        words = (f"+experiment={name}", f"backend={backend}", *SHORT, *sizes, *given.overrides)
        peaks[name, backend] = compare(words)
        found = peaks[name, backend]
        out(f"{name} {backend}: {found.foreseen // MEBIBYTE} foreseen, {found.measured // MEBIBYTE} measured")
    rows = [
        (
            name,
            backend,
            f"{found.foreseen / MEBIBYTE:,.0f} MiB",
            f"{found.measured / MEBIBYTE:,.0f} MiB",
            f"{100 * found.off:+.0f} %",
            "yes" if found.within else "no",
        )
        for (name, backend), found in peaks.items()
    ]
    columns = ("experiment", "backend", "foreseen", "measured", "off by", "within 15 % or 64 MiB")
    table("peak memory above import", columns, rows)
    out(f"{given.steps} updates, {given.prompts} answers; {race.THREADS} threads")
    if given.json:
        cases = {" ".join(key): asdict(found) for key, found in peaks.items()}
        settings = {"overrides": given.overrides, "steps": given.steps, "prompts": given.prompts}
        race.write_json(given.json, "memory", settings, {"cases": cases})


if __name__ == "__main__":
    main()
