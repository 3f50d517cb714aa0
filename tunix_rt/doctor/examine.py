"""Every subject examined at once: each module of `subjects/` has a `findings`, from which the list of them follows."""

from __future__ import annotations

import importlib
import pkgutil
from concurrent.futures import ThreadPoolExecutor

from tunix_rt.doctor import subjects
from tunix_rt.doctor.finding import Finding, Place
from tunix_rt.runs.secrets import mask


def examine(place: Place) -> dict[str, list[Finding]]:
    """Subject → what was found, in the order of their names. A check that fails is a finding, and no more."""
    names = [module.name for module in pkgutil.iter_modules(subjects.__path__)]
    with ThreadPoolExecutor(len(names)) as side_by_side:
        return dict(zip(names, side_by_side.map(lambda name: _examined(name, place), names), strict=True))


def _examined(name: str, place: Place) -> list[Finding]:
    try:
        found: list[Finding] = importlib.import_module(f"{subjects.__name__}.{name}").findings(place)
    except Exception as error:  # whatever is wrong with a machine: the other lines are worth reading
        return [Finding(name, "broken", f"this check failed: {mask(f'{type(error).__name__}: {error}')}")]
    return found
