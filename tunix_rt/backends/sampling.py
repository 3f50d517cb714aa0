"""The random numbers of decoding: a counter-based hash, so that a draw depends on (seed, position) only.

Computed on the host in numpy and handed to the device, so both backends draw the same numbers by construction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunix_rt.backends.interface import Float32


def uniforms(seeds: Sequence[int], num_positions: int) -> Float32:
    """Uniform numbers in [0, 1), float32 [len(seeds), num_positions], 24 bits each.

    splitmix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195) of seed + (position + 1) * golden gamma.
    """
    with np.errstate(over="ignore"):
        position = np.arange(1, num_positions + 1, dtype=np.uint64)
        z = np.array(seeds, dtype=np.uint64)[:, None] + position * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    draws: Float32 = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return draws
