"""Parity of random bits, answered at once or bit by bit: the task of arXiv 2510.11495.

A step is a running parity, which follows from the one before it and one more bit; the parity of all bits follows from
nothing that is easy to see. So a model learns to write the steps, and without them it can only guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from operator import xor

from tunix_rt.config.dataset import ParitySource
from tunix_rt.traces.draws import distinct_places, generator
from tunix_rt.traces.trace import Step, Trace


def generate(source: ParitySource, seed: int) -> Iterator[Trace]:
    """Distinct problems in the order drawn; all of them, in ascending order, if `num_traces` is null.

    A larger `num_traces` begins with the problems of a smaller one. Raises DataError if fewer exist.
    """
    for place in distinct_places(source.num_traces, 2**source.bits, seed, f"bits={source.bits}"):
        yield problem(source, seed, f"{place:0{source.bits}b}")


def problem(source: ParitySource, seed: int, bits: str) -> Trace:
    """The problem with these bits: its steps are the running parities, of which the last is the answer."""
    *running, last = accumulate(map(int, bits), xor)
    written = generator(f"{seed}:steps:{bits}").random() < source.steps_share
    steps = tuple(Step(place, "parity", str(parity)) for place, parity in enumerate(running) if written)
    return Trace(bits, f"{bits}=", steps, str(last), {"task": f"parity_{source.bits}"})
