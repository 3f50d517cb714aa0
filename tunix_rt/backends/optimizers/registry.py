"""The rule of each section of the config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunix_rt.backends.optimizers.adafactor import Adafactor
from tunix_rt.backends.optimizers.adam import Adam
from tunix_rt.backends.optimizers.adamw_8bit import AdamW8bit
from tunix_rt.backends.optimizers.lion import Lion
from tunix_rt.backends.optimizers.muon import Muon
from tunix_rt.backends.optimizers.rule import Rule
from tunix_rt.config.optimizers import OptimizerConfig

RULES: dict[str, Callable[[Any], Rule]] = {
    "adamw": lambda config: Adam(config.beta1, config.beta2, config.eps),
    "lion": Lion,
    "muon": Muon,
    "adafactor": Adafactor,
    "adamw_8bit": AdamW8bit,
}
"""By `optimizer.kind`."""


def rule_of(config: OptimizerConfig) -> Rule:
    """What a section of the config declares."""
    return RULES[config.kind](config)
