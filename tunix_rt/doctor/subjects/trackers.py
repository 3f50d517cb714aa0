"""Where runs are sent: is each declared store there, and which others could be chosen?"""

from __future__ import annotations

import os
from pathlib import Path

from tunix_rt.config.execution import TrackingConfig
from tunix_rt.doctor.finding import Finding, Place, existing, installed
from tunix_rt.errors import TunixError
from tunix_rt.hints import install
from tunix_rt.runs.secrets import mask
from tunix_rt.tracking.store import Target, names, store_class, usable
from tunix_rt.tracking.stores._mlflow_uri import sqlite_file


def findings(place: Place) -> list[Finding]:
    """A line for each store. One that does not answer keeps no run from its work."""
    tracking = place.config.tracking
    kinds = sorted({*names(), *tracking.stores})
    return [_chosen(tracking, kind) if kind in tracking.stores else _other(kind) for kind in kinds]


def _chosen(tracking: TrackingConfig, kind: str) -> Finding:
    try:
        found = usable(tracking, kind)
        where = found.store.resolve(found.uri, Path.cwd())
        trouble = found.store.check(where, tracking.experiment)
    except TunixError as error:
        return Finding(kind, "broken", str(error), "tracking=none runs without", stops=True)
    text = f"runs are sent to {mask(where)}"
    if trouble is None and not _writable(found, where):
        trouble = f"{where} cannot be written"
    if trouble is not None:
        return Finding(kind, "broken", trouble, "start the server, tracking.uri=URI names another, or tracking=none")
    return Finding(kind, "works", text)


def _writable(found: Target, where: str) -> bool:
    """Whether the file of a store on this disk can be written, where it has one."""
    file = sqlite_file(where)
    return file is None or os.access(existing(file), os.W_OK)


def _other(kind: str) -> Finding:
    package = store_class(kind).package
    if package is not None and not installed(package):
        return Finding(kind, "absent", "not installed", install(package))
    return Finding(kind, "absent", "not chosen", f"tracking={kind}")
