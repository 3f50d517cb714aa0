"""Membership in a split, decided by a hash: adding items never moves an old one.

The hash is of the trace's group (`meta.group`), else of its normalised prompt (the first of a conversation, so that
those which begin alike stay together), and of the seed.
"""

from __future__ import annotations

import hashlib

from tunix_rt.config.choices import SplitName
from tunix_rt.config.dataset import SplitConfig
from tunix_rt.traces.trace import Trace, normalise


def split_of(trace: Trace, split: SplitConfig, seed: int) -> SplitName:
    """The split of a trace of the `train` source: `test` from the low end, `validation` from the high end.

    With a share taken from each end, changing one never moves items in or out of the other.
    """
    place = (_hash(_key(trace), seed) >> 11) / 2**53
    if place < split.test:
        return "test"
    return "validation" if place >= 1 - split.validation else "train"


def hash_order(trace: Trace, seed: int) -> tuple[int, int]:
    """Sort key, 64 bits each: the traces of a group are neighbours. A limit takes the lowest."""
    return _hash(_key(trace), seed), _hash(f"id:{trace.id}", seed)


def _key(trace: Trace) -> str:
    group = trace.meta.get("group")
    return f"prompt:{normalise(trace.questions[0])}" if group is None else f"group:{group}"


def _hash(key: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")
