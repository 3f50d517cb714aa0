"""Creates a backend from its name. The framework is imported only here, when it is needed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import cast

from tunix_rt.backends.interface import Backend
from tunix_rt.backends.processes.world import ALONE
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.errors import MissingExtra


def require(name: str) -> None:
    """Check, without importing it, that the framework of backend `name` is installed. Raises MissingExtra."""
    facts = BACKENDS[name]
    if importlib.util.find_spec(facts.package) is None:
        words = f"uv sync {'--no-dev ' if facts.apart else ''}--extra {facts.extra}"
        raise MissingExtra(
            f"backend {name!r}: the package {facts.package!r} is not installed; "
            f"install the extra: {words} (or pip install 'tunix_rt[{facts.extra}]')"
        )


def create(backend: BackendConfig, hardware: HardwareConfig, cache: Path) -> Backend:
    """Create the backend `backend.name` on `hardware`; compiled programs are kept under `cache`.

    Raises MissingExtra, DeviceError.
    """
    require(backend.name)
    module = importlib.import_module(f"tunix_rt.backends.{backend.name}.backend")
    return cast(Backend, module.create(backend, hardware, cache, ALONE))
