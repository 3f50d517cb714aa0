"""`backend.precision: auto`: the faster precision on the declared device, decided before an experiment is identified.

Precision changes results, so it is in the identity of what is computed: what is recorded, and repeated from a record,
is always the precision that was decided, never `auto`.
"""

from __future__ import annotations

from dataclasses import replace

from tunix_rt.backends.rates import Rates, rates, said
from tunix_rt.config.choices import BACKENDS, Precision
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.machine import cache_folder
from tunix_rt.terminal import say

WORTH = 1.1
"""How many times faster bfloat16 must be to be chosen: float32 is the more accurate one."""


def decided(config: ExperimentConfig) -> ExperimentConfig:
    """`config` with a precision: that declared, or the faster one, which it then says on the terminal.

    Raises MissingExtra, DeviceError, ConfigError (a backend that cannot measure, a launcher's several processes).
    """
    backend = config.backend
    if backend.precision != "auto":
        return config
    found = rates(backend.name, config.hardware, cache_folder())
    chosen = faster(found)
    say(f"backend.precision=auto: {chosen}, by products of matrices measured on this device: {said(found)}")
    return replace(config, backend=replace(backend, precision=chosen, chosen_by=said(found)))


def faster(found: Rates) -> Precision:
    """bfloat16 where it is faster than float32 by `WORTH`."""
    return "bfloat16" if found["bfloat16"] >= WORTH * found["float32"] else "float32"


def slower_than_float32(config: ExperimentConfig, platform: str) -> str | None:
    """The rates, if bfloat16 is declared on a CPU that multiplies float32 faster; measured if not known."""
    backend = config.backend
    declared = backend.precision == "bfloat16" and backend.chosen_by is None
    if not declared or platform != "cpu" or not BACKENDS[backend.name].measures_precision:
        return None
    found = rates(backend.name, config.hardware, cache_folder())
    return said(found) if found["bfloat16"] < found["float32"] else None
