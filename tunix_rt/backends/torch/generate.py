"""Generation: prompts are answered in the order of their lengths, and join a batch where others have left it.

A row's numbers depend only on its prompt and seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunix_rt.backends.interface import Piece, Request
from tunix_rt.backends.prompts import first_equals
from tunix_rt.backends.torch.continuous import Continuous
from tunix_rt.backends.torch.mesh import ALONE, Axis
from tunix_rt.backends.torch.prepared import Prepared
from tunix_rt.batches.encoded import Int32
from tunix_rt.config.results import GenerationConfig

PIECE_LENGTH = 16
"""Tokens per piece of an unfinished row; a single prompt, which somebody may be watching, yields every token."""
JOINING = 0.25
"""Share of the rows that must be free before others join: a few long prompts in a pass are slower than many."""


def generate(
    prepared: Prepared,
    prompts: Sequence[Int32],
    generation: GenerationConfig,
    seeds: Sequence[int],
    stop_ids: Sequence[int],
    share: Axis = ALONE.rows,
) -> Iterator[Piece]:
    """See `Backend.generate`; of the prompts, in the order in which they are answered, every process of
    the axis `share` takes its own. A prompt that fills the model's positions yields an empty piece, "length".
    """
    firsts = first_equals(prompts)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), firsts[i]))[share.rank :: share.size]
    if not order:
        return
    size = min(generation.batch_size, len(order))
    remedy = f"lower generation.batch_size (now {generation.batch_size})"
    batch = Continuous(prepared, size, stop_ids, remedy, PIECE_LENGTH if size > 1 else 1)
    waiting = iter([Request(index, prompts[index], generation, seeds[index]) for index in order])
    left = len(order)
    while left or batch.in_use:
        if left and batch.free >= JOINING * size:
            for _ in range(min(left, batch.free)):
                batch.add(next(waiting))
                left -= 1
        yield from batch.step()
