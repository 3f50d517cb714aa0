"""Ten minutes on a machine with GPUs: speed, share of the peak, scaling, the same numbers as on the CPU, memory.

Models of 0.1, 0.5 and 1.5 billion parameters are drawn fresh and rows are random tokens, so nothing is downloaded.
Every part is a process of its own with a time limit; one that fails is a line of the table. What is done so far is
always in FOLDER/gpu.json and FOLDER/gpu.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import race
from benchmarks.fresh import Run
from benchmarks.gpu_tables import Done, tables
from benchmarks.isolated import Call, Outcome, attempt
from benchmarks.report import about, write_markdown
from benchmarks.workload import installed
from tunix_rt.config.choices import BACKENDS, BackendName, Platform
from tunix_rt.terminal import say

PREPARING = 300.0
"""Seconds that it may take to draw a model, 6 GB of it, and write it; or to find the devices."""


@dataclass(frozen=True, slots=True)
class Part:
    """One measurement: a function of `benchmarks.steps`, and of what."""

    function: str
    run: Run
    more: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """As it is called while it runs."""
        run = self.run
        return f"{self.function}: {run.backend}, {run.platform}, {run.model}, {run.precision}, {run.mesh}"

    def call(self, root: Path) -> Call:
        """How a process is asked for it."""
        arguments = {"root": str(root), "run": self.run.to_json(), **dict(self.more)}
        return Call(f"benchmarks.steps:{self.function}", arguments)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    models: tuple[str, ...]
    """The first is measured with every number of devices, others with one and with all."""
    speed: Run
    numbers: Run
    long: Run
    seconds: float
    gemm: int
    """Rows and columns of the matrices whose product is the peak."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long it may take."""

    minutes: float
    """After which no part begins."""
    part: float
    """Seconds of a process."""


def sizes_of(platform: Platform, quick: bool) -> Sizes:
    """Full sizes, or those at which the script itself is tested."""
    tiny = Run("torch", platform, "tiny", rows=5, length=24, segments=2, steps=2, prompts=3, new_tokens=3, threads=2)
    if quick:
        speed = replace(tiny, precision="bfloat16", rows=2, segments=1, rows_at_once=1)
        return Sizes(("tiny",), speed, tiny, replace(tiny, length=96, segments=3), 0.0, 64)
    speed = Run("torch", platform, "0.5 B", precision="bfloat16", rows=8, length=2048, rows_at_once=8, threads=16)
    numbers = Run("torch", platform, "small", rows=13, length=128, segments=3, steps=5, new_tokens=24, threads=16)
    long = replace(numbers, model="long", rows=2, length=8192, segments=5)
    return Sizes(("0.5 B", "0.1 B", "1.5 B"), speed, numbers, long, 6.0, 8192)


def plan_parts(backends: Sequence[BackendName], platform: Platform, devices: int, sizes: Sizes) -> list[Part]:
    """All parts, what matters most first: time may be up before the last."""
    counts = [count for count in (1, 2, 4, 8) if count <= devices]
    meshes = [(count, shard) for count in counts for shard in ((1, count) if count > 1 else (1,))]
    ends = [(count, shard) for count, shard in meshes if count in (1, counts[-1])]
    more = (("seconds", sizes.seconds), ("gemm", sizes.gemm))

    def of(base: Run, some: Sequence[tuple[int, int]]) -> Iterator[Run]:
        for count, shard in some:
            for backend in backends:
                yield replace(base, backend=backend, devices=count, shard=shard)

    def speed(model: str, some: Sequence[tuple[int, int]]) -> list[Part]:
        found = of(replace(sizes.speed, model=model), some)
        return [Part("speed", replace(run, rows=run.rows * run.devices), more) for run in found]

    middle = [mesh for mesh in meshes if mesh not in ends]
    parts = speed(sizes.models[0], ends)
    parts += [Part("numbers", run) for run in of(sizes.numbers, ends)]
    if platform != "cpu":
        parts += [Part("numbers", run) for run in of(replace(sizes.numbers, platform="cpu"), [(1, 1)])]
        parts += list(_long(sizes.long, backends))
    parts += speed(sizes.models[0], middle)
    for model in sizes.models[1:]:
        parts += speed(model, [(1, 1)])
    parts += [Part("numbers", run) for run in of(sizes.numbers, middle)]
    for model in sizes.models[1:]:
        parts += speed(model, ends[1:])
    return parts


def _long(base: Run, backends: Sequence[BackendName]) -> Iterator[Part]:
    """Rows that take the kernels of a GPU, and the same on the CPU, which has their reference."""
    for backend in backends:
        for platform in (base.platform, "cpu"):
            for precision in ("float32", "bfloat16"):
                yield Part("long_rows", replace(base, backend=backend, platform=platform, precision=precision))


def execute(parts: Sequence[Part], root: Path, limits: Limits, together: bool, write: Any) -> list[Done]:
    """Each part in a process (`together`: those of a backend in one), as long as there is time."""
    deadline = time.monotonic() + 60 * limits.minutes
    found: list[Done] = []
    groups = [[part] for part in parts]
    if together:
        ordered = sorted(parts, key=lambda part: (part.run.backend, -part.run.devices))  # jax cannot add devices later
        groups = [list(some) for _, some in groupby(ordered, key=lambda part: part.run.backend)]
    for group in groups:
        if time.monotonic() > deadline:
            outcomes = [Outcome(failure=f"left out: the {limits.minutes:.0f} minutes were up") for _ in group]
        else:
            outcomes = attempt([part.call(root) for part in group], limits.part)
        for part, outcome in zip(group, outcomes, strict=True):
            found.append(Done(part.function, part.run, outcome))
            say(f"{len(found)}/{len(parts)} {part.name}: {_in_short(found[-1])} ({outcome.seconds:.0f} s)")
        write(found)
    return found


def _in_short(done: Done) -> str:
    result = done.outcome.result
    if result is None:
        return f"FAILED: {done.outcome.failure}"
    if done.function == "speed":
        return f"{result['tokens_per_second']:,.0f} tokens/s, {result['share_of_peak']:.1%} of the peak"
    return "done"


def draw(models: Sequence[str], root: Path) -> None:
    """Models are drawn before anything is timed. One that fails is missed by the parts that need it."""
    for model in models:
        call = Call("benchmarks.steps:draw", {"root": str(root), "model": model})
        (outcome,) = attempt([call], PREPARING)
        say(f"model of {model} parameters: {outcome.failure or 'drawn'} ({outcome.seconds:.0f} s)")


def present(backends: Sequence[BackendName], platform: Platform) -> int:
    """How many devices the first backend finds that finds any."""
    for backend in backends:
        call = Call("benchmarks.steps:present", {"backend": backend, "platform": platform})
        (outcome,) = attempt([call], PREPARING)
        say(f"{backend}: {outcome.failure or ', '.join(outcome.result)}")
        if outcome.result:
            return len(outcome.result)
    raise SystemExit(f"no backend finds a device of the platform {platform}; --platform cpu --quick tries the script")


def main(arguments: list[str] | None = None) -> None:
    """`python -m benchmarks.gpu`."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    made.add_argument("--platform", choices=["gpu", "cpu"], default="gpu", help="cpu: to try the script")
    made.add_argument("--devices", type=int, help="at most so many (default: all)")
    made.add_argument("--backends", type=lambda text: text.split(","), metavar="A,B", help="default: those installed")
    made.add_argument("--minutes", type=float, default=10.0, help="no part begins later (default %(default)s)")
    made.add_argument("--limit", type=float, default=150.0, help="seconds of a part, at most (default %(default)s)")
    made.add_argument("--quick", action="store_true", help="tiny sizes: that it runs, not how fast")
    made.add_argument("--out", type=Path, default=Path("data/benchmarks/gpu"), metavar="FOLDER", help="results")
    given = made.parse_args(arguments)
    backends = given.backends or [name for name in installed() if BACKENDS[name].devices]
    sizes, root = sizes_of(given.platform, given.quick), given.out / "models"
    given.out.mkdir(parents=True, exist_ok=True)
    devices = given.devices or (2 if given.platform == "cpu" else present(backends, given.platform))
    parts = plan_parts(backends, given.platform, devices, sizes)
    if not given.quick:
        draw(list(dict.fromkeys(part.run.model for part in parts)), root)

    def write(found: list[Done]) -> None:
        record = [{"function": one.function, "run": asdict(one.run), **asdict(one.outcome)} for one in found]
        race.write_json(given.out / "gpu.json", "gpu", {"devices": devices}, {"parts": record})
        write_markdown(given.out / "gpu.md", "Devices", about(_device(found)), tables(found))

    found = execute(parts, root, Limits(given.minutes, given.limit), given.quick, write)
    for one in tables(found):
        one.show()
    say(f"written to {given.out}/gpu.json and {given.out}/gpu.md")


def _device(found: Sequence[Done]) -> str:
    names = [one.outcome.result["device"] for one in found if one.function == "speed" and one.outcome.result]
    return names[0] if names else "no device answered"


if __name__ == "__main__":
    main()
