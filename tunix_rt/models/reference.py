"""A model folder without weights, which stands for the model that a run started from.

    start_model.json    the sha256 of that model (`content.folder_digest`), and `quantize`, if its matrices are held so

A run that trains nothing leaves such a folder: a copy of 14 GB would say no more. Where the model is, the run's
prepared data says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from tunix_rt.config.choices import Quantization
from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject, write_json
from tunix_rt.models.folder import read_object

FILE = "start_model.json"


@dataclass(frozen=True, slots=True)
class Reference:
    """What the folder says."""

    sha256: str
    """`folder_digest` of the model."""
    quantize: Quantization | None
    """How the matrices of its layers are held when it answers (`model.adapter.quantize`)."""


def is_reference(folder: Path) -> bool:
    """Whether the folder stands for another model."""
    return (folder / FILE).is_file()


def write_reference(folder: Path, reference: Reference) -> None:
    """Write the file into a folder, created if missing."""
    content: JsonObject = {"sha256": reference.sha256}
    write_json(folder / FILE, content | ({"quantize": reference.quantize} if reference.quantize else {}))


def read_reference(folder: Path) -> Reference:
    """Raises ModelError if the file is damaged."""
    found = read_object(folder / FILE)
    sha256, quantize = found.get("sha256"), found.get("quantize")
    if not isinstance(sha256, str) or quantize not in (None, *get_args(Quantization)):
        raise ModelError(f"{folder / FILE}: damaged; remove the folder, and the run's command writes it again")
    return Reference(sha256, quantize)


def check_start(folder: Path, start: Path, sha256: str) -> None:
    """Refuse a model (with content hash `sha256`) other than the one that the folder stands for."""
    known = read_reference(folder).sha256
    if known != sha256:
        raise ModelError(
            f"{start}: not the model that {folder} stands for (sha256 {sha256[:12]}… here, {known[:12]}… recorded); "
            "put the old model back, or run the command again with run.new=true"
        )
