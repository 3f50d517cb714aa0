"""What differs among the layers of a model that is one loop over stacked layers: rotary positions and windows.

Legend: B rows, T positions, d width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from tunix_rt.backends.jax.attention import rotary_tables
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.rope import Rope


@dataclass(frozen=True, slots=True)
class LayerVariants:
    """The different rotary positions and windows among layers, and which layer has which."""

    ropes: tuple[Rope | None, ...]
    rope_of: tuple[int, ...]
    windows: tuple[int | None, ...]
    window_of: tuple[int, ...]

    @classmethod
    def of(cls, architecture: Architecture, length: int) -> LayerVariants:
        """Variants for rows of `length` positions: a window at least that wide counts as none."""
        wide = [None if kind.window is None or kind.window >= length else kind.window for kind in architecture.layers]
        turns = [kind.rope for kind in architecture.layers]
        windows, ropes = tuple(dict.fromkeys(wide)), tuple(dict.fromkeys(turns))
        return cls(ropes, tuple(map(ropes.index, turns)), windows, tuple(map(windows.index, wide)))

    def rotations(self, head_dim: int, length: int, positions: jax.Array) -> tuple[jax.Array, jax.Array] | None:
        """Cosines and sines [ropes, B, T, d/2] at `positions` [B, T] below `length`; None: no layer rotates."""
        if self.ropes == (None,):
            return None
        tables = [rotary_tables(length, head_dim, rope) for rope in self.ropes]
        cos, sin = (jnp.asarray(np.stack(table))[:, positions] for table in zip(*tables, strict=True))
        return cos, sin


def pick(stack: jax.Array, index: jax.Array) -> jax.Array:
    """`stack[index]`, without a lookup if there is only one entry."""
    return stack[0] if len(stack) == 1 else stack[index]
