"""The random numbers of decoding and of dropout: counter-based hashes, so that a draw depends only on its position.

Computed on the host in numpy and copied to the device, so all backends draw the same numbers by construction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tunix_rt.models.folder import Float32

UInt32 = np.ndarray[Any, np.dtype[np.uint32]]
Rows = np.ndarray[Any, np.dtype[np.int64]]


def row_seed(seed: int, *key: str | int) -> int:
    """64-bit seed of a row's sampling, from the experiment's seed and the key of the answer."""
    text = "\0".join(map(str, (seed, *key))).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


def uniforms(seeds: Sequence[int], num_positions: int) -> Float32:
    """Uniform numbers in [0, 1), float32 [len(seeds), num_positions], 24 bits each.

    splitmix64 (Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195) of seed + (position + 1) * golden gamma.
    """
    z = _splitmix64(np.array(seeds, dtype=np.uint64)[:, None], np.arange(num_positions, dtype=np.uint64))
    draws: Float32 = (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return draws


def dropout_keys(seed: int, step: int, rows: Rows, names: Sequence[str]) -> UInt32:
    """Keys of the dropout masks of an update, uint32 [*rows.shape, len(names), 2]: two for each row and named input.

    `rows`: numbers of rows in the whole batch, so that a mask is the same however the rows are shared out.
    Element i (of the flat array) of a row's input is dropped if `mix(i)`, below, is less than dropout * 2^32:

        i ^= key[0]; i ^= i >> 16; i *= 0x85EBCA6B; i ^= key[1]; i ^= i >> 13; i *= 0xC2B2AE35; i ^= i >> 16

    (the finaliser of MurmurHash3 by Austin Appleby, public domain, with the second key mixed in half-way).
    """
    streams = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") for name in names]
    of_step = _splitmix64(np.array(seed, np.uint64), np.array(step, np.uint64))
    of_row = _splitmix64(of_step, rows.astype(np.uint64))
    z = _splitmix64(of_row[..., None] ^ np.array(streams, np.uint64), np.array(0, np.uint64))
    return np.stack([z >> np.uint64(32), z & np.uint64(0xFFFFFFFF)], axis=-1).astype(np.uint32)


def _splitmix64(seeds: Any, index: Any) -> Any:
    """Output number `index`, from 0, of the generator with each seed; both uint64, broadcast."""
    with np.errstate(over="ignore"):
        z = seeds + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
