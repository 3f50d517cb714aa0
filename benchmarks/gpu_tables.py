"""What `benchmarks.gpu` shows: speed with scaling and memory, and the numbers of devices that should be equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.fresh import Run
from benchmarks.isolated import Outcome
from benchmarks.report import Table, mebibytes

SAME_KIND, OTHER_KIND = (1e-6, 1e-5), (1e-5, 1e-4)
"""Relative differences that are allowed of loss and gradient norm: between numbers of devices; between kinds."""
LOGPROBS = {"float32": 2e-4, "bfloat16": 2e-2}
"""Differences that are allowed of a mean log-probability."""


@dataclass(frozen=True, slots=True)
class Done:
    """A part, and what became of it."""

    function: str
    run: Run
    outcome: Outcome

    @property
    def label(self) -> str:
        """Which devices, in a table."""
        return f"{self.run.backend}, {self.run.platform}, {self.run.mesh}"


def tables(found: Sequence[Done]) -> list[Table]:
    """All tables of what is done."""
    speed = (
        "",
        "tokens / s",
        "of the peak",
        "peak TFLOP/s",
        "scaling",
        "memory",
        "plan",
        "memory / plan",
        "rows at once",
    )
    numbers = ("", "loss", "gradient norm", "greedy answers", "")
    long = ("", "log-probability", "loss", "gradient norm", "")
    made = [
        Table("speed", speed, rows_of_speed(found), SPEED_NOTE),
        Table("the same numbers", numbers, rows_of_numbers(found), NUMBERS_NOTE),
        Table("long rows, on the device and on the CPU", long, rows_of_long(found), LONG_NOTE),
    ]
    return [one for one in made if one.rows]


SPEED_NOTE = (
    "Of the peak: FLOPs of the model over those that a product of two matrices in bfloat16 reached on the same device "
    "in the same process. FLOPs per token: 6 N + 6 L H d T with N parameters that multiply (the output matrix among "
    "them), L layers, H heads of width d, rows of T tokens; causal attention counts what is seen, and nothing that is "
    "computed anew counts. Scaling: tokens per second and device, over those of one device, as many rows for each. "
    "Memory of one device at its peak, and what `plan` says."
)
NUMBERS_NOTE = (
    "Largest relative difference over all updates, float32. Allowed: loss 1e-6, gradient norm 1e-5 between numbers of "
    "devices; 1e-5 and 1e-4 between kinds of devices, and frameworks."
)
LONG_NOTE = (
    "Rows of several traces, with the kernels of a GPU there and the reference on the CPU. Largest difference of the "
    "log-probability of a target (every 16th); allowed: 2e-4 in float32, 2e-2 in bfloat16."
)


def rows_of_speed(found: Sequence[Done]) -> list[tuple[str, ...]]:
    """A row for each measurement of speed, failed ones too."""
    mine = [one for one in found if one.function == "speed"]
    ones = {
        (one.run.backend, one.run.model): one.outcome.result["tokens_per_second"]
        for one in mine
        if one.run.devices == 1 and one.outcome.result
    }
    return [_speed(one, ones.get((one.run.backend, one.run.model))) for one in mine]


def _speed(done: Done, one: float | None) -> tuple[str, ...]:
    run, result = done.run, done.outcome.result
    name = f"{run.backend}, {run.model}, {run.mesh}"
    if result is None:
        return (name, done.outcome.failure or "failed", *[""] * 7)
    rate, most = result["tokens_per_second"], max(result["measured"])
    return (
        name,
        f"{rate:,.0f}",
        f"{result['share_of_peak']:.1%}",
        f"{result['peak_flops'] / 1e12:,.1f}",
        f"{rate / run.devices / one:.2f}" if one else "",
        mebibytes(most),
        mebibytes(result["plan"]) if result["plan"] else "",
        f"{most / result['plan']:.2f}" if result["plan"] else "",
        str(result["rows_at_once"]),
    )


def rows_of_numbers(found: Sequence[Done]) -> list[tuple[str, ...]]:
    """A row for each two devices, or numbers of devices, that should give the same numbers."""
    mine = [one for one in found if one.function == "numbers"]
    return [_numbers(one, other, allowed) for one, other, allowed in _pairs(mine)]


def _pairs(found: Sequence[Done]) -> Iterator[tuple[Done, Done, tuple[float, float]]]:
    for one in found:
        for other in found:
            if allowed := _allowed(one.run, other.run):
                yield one, other, allowed


def _allowed(one: Run, other: Run) -> tuple[float, float] | None:
    """How far `one` may be from `other`; None if the two are not compared.

    Several devices against one, sharded against data parallel, a GPU against the CPU, jax against torch.
    """
    if (one.backend, one.platform) == (other.backend, other.platform):
        more = one.devices > other.devices == 1
        return SAME_KIND if more or (one.devices == other.devices and one.shard > other.shard) else None
    if not one.devices == other.devices == 1:
        return None
    on_cpu = one.backend == other.backend and other.platform == "cpu"
    frameworks = one.platform == other.platform and (one.backend, other.backend) == ("jax", "torch")
    return OTHER_KIND if on_cpu or frameworks else None


def _numbers(one: Done, other: Done, allowed: tuple[float, float]) -> tuple[str, ...]:
    name, (a, b) = f"{one.label} against {other.label}", (one.outcome.result, other.outcome.result)
    if a is None or b is None:
        return name, "", "", "", f"FAILED: {one.outcome.failure or other.outcome.failure}"
    loss, norm = (_apart(a[key], b[key]) for key in ("losses", "norms"))
    equal = sum(x == y for x, y in zip(a["answers"], b["answers"], strict=True))
    holds = loss <= allowed[0] and norm <= allowed[1] and equal == len(a["answers"])
    return name, f"{loss:.1e}", f"{norm:.1e}", f"{equal} of {len(a['answers'])}", "ok" if holds else "DIFFERENT"


def _apart(a: Any, b: Any) -> float:
    """Largest relative difference; inf if a number is not finite."""
    x, y = (np.asarray(values, np.float64) for values in (a, b))
    apart = np.abs(x - y) / np.abs(y)
    return float(apart.max()) if np.isfinite(apart).all() else float("inf")


def rows_of_long(found: Sequence[Done]) -> list[tuple[str, ...]]:
    """A row for each backend and precision on the device, against the CPU."""
    mine = [one for one in found if one.function == "long_rows"]
    references = {(one.run.backend, one.run.precision): one for one in mine if one.run.platform == "cpu"}
    return [
        _long(one, references[one.run.backend, one.run.precision])
        for one in mine
        if one.run.platform != "cpu" and (one.run.backend, one.run.precision) in references
    ]


def _long(one: Done, other: Done) -> tuple[str, ...]:
    name, (a, b) = f"{one.run.backend}, {one.run.precision}", (one.outcome.result, other.outcome.result)
    if a is None or b is None:
        return name, "", "", "", f"FAILED: {one.outcome.failure or other.outcome.failure}"
    x, y = (np.asarray(result["logprobs"], np.float64) for result in (a, b))
    apart = float(np.abs(x - y).max())
    loss, norm = (_apart([a[key]], [b[key]]) for key in ("loss", "grad_norm"))
    holds = apart <= LOGPROBS[one.run.precision]
    return name, f"{apart:.1e}", f"{loss:.1e}", f"{norm:.1e}", "ok" if holds else "DIFFERENT"
