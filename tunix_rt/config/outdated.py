"""Keys of earlier versions whose value is now another: the mistake says what to write; records are read as today's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS, ACCUMULATED, DEVICE = "per_device_batch_size", "gradient_accumulation_steps", "device"


def outdated(mapping: Mapping[str, Any]) -> tuple[list[tuple[str, str]], dict[str, Any]]:
    """(Dotted path, what to write instead) of each such key, and the config without them."""
    training, hardware = (
        dict(found) if isinstance(found := mapping.get(name), Mapping) else found for name in ("training", "hardware")
    )
    mistakes: list[tuple[str, str]] = []
    if isinstance(training, dict) and (old := [name for name in (ROWS, ACCUMULATED) if name in training]):
        given = {name: training.pop(name) for name in old}
        mistakes += [(f"training.{old[0]}", _rows(given))]
    if isinstance(hardware, dict) and DEVICE in hardware:
        number = hardware.pop(DEVICE)
        mistakes += [(f"hardware.{DEVICE}", f"write hardware.devices=[{number}] (or a number of devices, or all)")]
    return mistakes, {**mapping, "training": training, "hardware": hardware} if mistakes else dict(mapping)


def _rows(given: Mapping[str, Any]) -> str:
    """What declares the same update."""
    rows, accumulated = given.get(ROWS), given.get(ACCUMULATED, 1)
    if not (isinstance(rows, int) and isinstance(accumulated, int)):
        return "write training.global_batch_size, the rows of one update over all devices"
    said = f"write training.global_batch_size={rows * accumulated} ({rows} rows x {accumulated} micro-batches)"
    return f"{said}; how many rows a device computes at once is hardware.local_batch_size={rows}, or auto"


def tracking_of_today(section: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded section `tracking`, also from before a run was sent to several stores: it had the `kind` of one."""
    kept = {key: value for key, value in section.items() if key != "kind"}
    if "kind" in section:
        kept["stores"] = {} if section["kind"] == "none" else {section["kind"]: {}}
    return kept
