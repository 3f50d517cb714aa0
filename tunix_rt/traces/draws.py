"""How generated problems are drawn from a seed: by their places among all that exist."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import count, islice

from boltons.iterutils import unique_iter

from tunix_rt.errors import DataError

MAX_PROBLEMS = 10_000_000
"""More are never written out without being asked for by number."""


def generator(stream: str) -> random.Random:
    """A separate random generator per purpose: draws from one never affect another."""
    return random.Random(stream)  # noqa: S311 (reproducible, nothing secret)


def distinct_places(num: int | None, total: int, seed: int, wanted: str) -> Iterable[int]:
    """`num` distinct places below `total` in the order drawn; None: all, in ascending order.

    A larger `num` begins with the places of a smaller one. `wanted`: the setting that decides `total`, as `name=value`.
    Raises DataError if there are fewer, or too many.
    """
    if num is None and total > MAX_PROBLEMS:
        raise DataError(
            f"dataset.source.num_traces: null means all, and {total:,} problems have {wanted}; give a number"
        )
    if num is None:
        return range(total)
    if num > total:
        raise DataError(
            f"dataset.source.num_traces: {num:,} distinct problems asked for, but only {total:,} have {wanted}; "
            f"lower it or raise dataset.source.{wanted.partition('=')[0]}"
        )
    drawn = generator(f"{seed}:problems")
    return islice(unique_iter(drawn.randrange(total) for _ in count()), num)
