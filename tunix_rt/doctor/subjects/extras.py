"""The optional packages: which extras are complete, and the command for each of the others."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import metadata, requires

from packaging.requirements import Requirement

from tunix_rt.doctor.finding import Finding, Place, version
from tunix_rt.hints import install

OURS = "tunix_rt"
OF_FRAMEWORKS = ("jax", "torch", "tunix")
"""Those that the frameworks' own lines are about."""


def findings(place: Place) -> list[Finding]:
    """A line for those that are there, and one for each that is not."""
    extras = metadata(OURS).get_all("Provides-Extra") or []
    missing = {extra: list(dict.fromkeys(_missing(OURS, extra))) for extra in extras}
    there = [extra for extra, names in missing.items() if not names]
    return [Finding("extras", "works", ", ".join(there) or "none")] + [
        Finding(f"extra {extra}", "absent", f"{_few(names)} not installed", install(extra))
        for extra, names in missing.items()
        if names and extra not in OF_FRAMEWORKS
    ]


def _missing(distribution: str, extra: str) -> Iterator[str]:
    """The distributions that an extra of one wants and that are not installed, through the extras that it names."""
    for text in requires(distribution) or ():
        wanted = Requirement(text)
        if not _only_of(wanted, extra):
            continue
        if version(wanted.name) is None:
            yield wanted.name
        else:
            for further in wanted.extras:
                yield from _missing(wanted.name, further)


def _only_of(wanted: Requirement, extra: str) -> bool:
    """Whether an extra wants it on this machine, and no installation without that extra does."""
    marker = wanted.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
