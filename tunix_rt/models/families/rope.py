"""Rotary positions (arXiv 2104.09864): what a config.json declares, and the frequencies that follow from it.

One function reads a kind of scaling, one computes its frequencies; a new kind is these two and a line in `KINDS`.
Source of all: `transformers` (5.22, modeling_rope_utils.py), rounded in float32 as there.

Two kinds depend on the length of a sequence there. `dynamic` changes the base beyond `max_position_embeddings`, where
sequences end here; up to it, it is `default`. `longrope` has short factors up to `original_max_position_embeddings` and
long ones for all positions of a longer sequence (of a longer batch, even): if the two differ, sequences end there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tunix_rt.models.families.fields import Fields

Frequencies = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary positions, halves paired as in `transformers`."""

    theta: float
    """Base of the frequencies."""
    scaling: str = "default"
    """A key of `KINDS`."""
    factor: float = 1.0
    """Frequencies are divided by this (`llama3` and `yarn`: only the low ones)."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_positions: int = 8192
    """`llama3` and `yarn`: context length of the pretraining, which wavelengths are compared with."""
    attention_factor: float = 1.0
    """Sines and cosines, and so queries and keys, are multiplied by this."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    """`yarn`: turns within the original length above which a frequency stays, and below which it is divided."""
    truncate: bool = True
    """`yarn`: the dimensions between which the two are mixed are rounded outwards."""
    factors: tuple[float, ...] | None = None
    """`longrope`: what each of the frequencies is divided by."""
    max_positions: int | None = None
    """`longrope`: the longest sequence that has these factors; None: every one has."""


@dataclass(frozen=True, slots=True)
class Declared:
    """The rotary parameters of a config.json."""

    fields: Fields
    theta: float
    max_positions: int
    """`max_position_embeddings`."""
    original: int
    """`original_max_position_embeddings`; if absent, `max_positions`."""

    @property
    def attention_factor(self) -> float | None:
        """`attention_factor`; None: it follows from the other fields."""
        return self.fields.number_or_null("attention_factor")

    def factors(self, name: str) -> tuple[float, ...]:
        """A list of positive numbers. Raises ModelError."""
        values = self.fields.config.get(name)
        if not isinstance(values, list) or not all(isinstance(x, int | float) and x > 0 for x in values):
            problem = "missing" if values is None else repr(values)
            raise self.fields.refuse(name, f"{problem}, expected a list of positive numbers")
        return tuple(map(float, values))


def _unscaled(declared: Declared) -> Rope:
    return Rope(declared.theta)


def _linear(declared: Declared) -> Rope:
    return Rope(declared.theta, "linear", declared.fields.number("factor"))


def _llama3(declared: Declared) -> Rope:
    factor, low, high = (declared.fields.number(f"{name}factor") for name in ("", "low_freq_", "high_freq_"))
    return Rope(declared.theta, "llama3", factor, low, high, declared.original)


def _dynamic(declared: Declared) -> Rope:
    declared.fields.number("factor")
    return Rope(declared.theta)


def _yarn(declared: Declared) -> Rope:
    fields = declared.fields
    factor = fields.number("factor")
    return Rope(
        declared.theta,
        "yarn",
        factor,
        original_positions=declared.original,
        attention_factor=declared.attention_factor or _yarn_attention(fields, factor),
        beta_fast=fields.number("beta_fast", 32.0),
        beta_slow=fields.number("beta_slow", 1.0),
        truncate=fields.flag("truncate", True),
    )


def _yarn_attention(fields: Fields, factor: float) -> float:
    """The attention factor of arXiv 2309.00071, or DeepSeek's ratio of two of its kind."""

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    one, all_dim = (fields.config.get(name) for name in ("mscale", "mscale_all_dim"))
    if one and all_dim:
        return scale(fields.number("mscale")) / scale(fields.number("mscale_all_dim"))
    return scale(1.0)


def _longrope(declared: Declared) -> Rope:
    short, long = declared.factors("short_factor"), declared.factors("long_factor")
    factor = declared.fields.number("factor", declared.max_positions / declared.original)
    attention = declared.attention_factor
    if attention is None:
        attention = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(declared.original))
    end = None if short == long else declared.original
    return Rope(declared.theta, "longrope", attention_factor=attention, factors=short, max_positions=end)


def _plain_frequencies(rope: Rope, powers: Frequencies) -> Frequencies:
    found: Frequencies = np.float32(1.0) / powers
    return found


def _linear_frequencies(rope: Rope, powers: Frequencies) -> Frequencies:
    return _plain_frequencies(rope, powers) / np.float32(rope.factor)


def _llama3_frequencies(rope: Rope, powers: Frequencies) -> Frequencies:
    plain = _plain_frequencies(rope, powers)
    low, high, factor = (np.float32(x) for x in (rope.low_freq_factor, rope.high_freq_factor, rope.factor))
    divided: Frequencies = plain / factor
    turns = np.float32(rope.original_positions) / (np.float32(2 * math.pi) / plain)
    smooth = (turns - low) / (high - low)
    between = (1 - smooth) * divided + smooth * plain
    return np.where(turns < low, divided, np.where(turns > high, plain, between)).astype(np.float32)


def _yarn_frequencies(rope: Rope, powers: Frequencies) -> Frequencies:
    width = 2 * len(powers)

    def dimension(turns: float) -> float:
        return width * math.log(rope.original_positions / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    low, high = (math.floor(low), math.ceil(high)) if rope.truncate else (low, high)
    low, high = max(low, 0), min(high, width - 1)
    high = high + 0.001 if low == high else high  # not divided by 0
    ramp = (np.arange(len(powers), dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept: Frequencies = np.float32(1.0) - np.clip(ramp, 0, 1)
    divided = _plain_frequencies(rope, np.float32(rope.factor) * powers)
    mixed: Frequencies = divided * (np.float32(1.0) - kept) + _plain_frequencies(rope, powers) * kept
    return mixed


def _longrope_frequencies(rope: Rope, powers: Frequencies) -> Frequencies:
    return _plain_frequencies(rope, np.array(rope.factors, np.float32) * powers)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of scaling: how it is read, and its frequencies from the powers of the base, [head_dim / 2]."""

    read: Callable[[Declared], Rope]
    frequencies: Callable[[Rope, Frequencies], Frequencies] = _plain_frequencies


KINDS = {
    "default": Kind(_unscaled),
    "linear": Kind(_linear, _linear_frequencies),
    "dynamic": Kind(_dynamic),
    "llama3": Kind(_llama3, _llama3_frequencies),
    "yarn": Kind(_yarn, _yarn_frequencies),
    "longrope": Kind(_longrope, _longrope_frequencies),
}
"""`rope_type` → its kind."""


def rotary_frequencies(rope: Rope, head_dim: int) -> Frequencies:
    """Radians per position, float32 [head_dim / 2]."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    return KINDS[rope.scaling].frequencies(rope, np.power(np.float32(rope.theta), exponents))
