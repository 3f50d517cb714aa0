"""The closed sets from which a config chooses, as plain data: nothing here imports what it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BackendName = Literal["jax", "torch"]
Precision = Literal["float32", "bfloat16"]
Platform = Literal["auto", "cpu", "gpu", "tpu"]
Adapter = Literal["trace", "gsm8k", "chat", "prompt_completion", "evaluation_set"]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What is known of a backend without importing it."""

    package: str
    """The framework's import name: the backend is installed when this can be found."""
    extra: str
    """The extra of this package that installs the framework."""
    platforms: tuple[str, ...]
    """Platforms it can run on."""


BACKENDS: dict[str, BackendFacts] = {
    "jax": BackendFacts(package="jax", extra="jax", platforms=("cpu", "gpu", "tpu")),
    "torch": BackendFacts(package="torch", extra="torch", platforms=("cpu", "gpu")),
}
