"""The content of a model folder, as a digest, and whether an adapter belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tunix_rt.checked import sha256_of
from tunix_rt.errors import ModelError
from tunix_rt.files import digest
from tunix_rt.models.adapter_folder import BASE, FILES, Base, read_base
from tunix_rt.models.folder import CONFIG, GENERATION, INDEX, is_adapter, tokenizer_files, weight_files
from tunix_rt.models.reference import FILE as REFERENCE
from tunix_rt.models.reference import is_reference
from tunix_rt.terminal import warn

MADE = "made.json"
"""In a folder of `made_once`: size and sha256 of each of its files."""


def folder_digest(folder: Path, full: bool = False) -> str:
    """Hex sha256 of the files that define a model, `model_files`, each by its name and bytes.

    `full`: read every byte instead of trusting remembered digests.
    """
    return digest_of({name: sha256_of(folder / name, full) for name in model_files(folder)})


def model_files(folder: Path) -> list[str]:
    """Config, weights, tokenizer and generation config of a model folder, by their paths in it.

    An adapter folder counts as a model folder, its record of the base included, and so does one that stands for another
    (`reference`). Raises ModelError if weights are missing, or if the folder holds a model and an adapter.
    """
    if is_reference(folder):
        return [REFERENCE]
    weights = () if is_adapter(folder) else weight_files(folder)
    found = {name for name in (CONFIG, GENERATION, *FILES) if (folder / name).is_file()}
    return sorted({*found, *tokenizer_files(folder), *(path.relative_to(folder).as_posix() for path in weights)})


def digest_of(files: Mapping[str, str]) -> str:
    """`folder_digest` of a folder with these files, given by the sha256 of each.

    An index does not count: which tensor is where, the files with the weights say themselves.
    """
    return digest({name: sha256 for name, sha256 in files.items() if name != INDEX})


def check_base(folder: Path, base: Path, sha256: str | None) -> None:
    """Refuse a base (with content hash `sha256`) other than the one that an adapter was trained on.

    An adapter from elsewhere records no hash: the folder that it names is compared, if it is there; else another name
    is a warning, and so it is of a copy that was made here.
    """
    recorded = read_base(folder)
    place = None if recorded.name is None else Path(recorded.name).expanduser()
    there, known = f"recorded in its {BASE}", recorded.sha256
    if known is None:
        if place is None or place.resolve() == base.resolve():
            return
        if place.is_dir() and not (base / MADE).is_file():
            there, known = f"in {place}, which it names", folder_digest(place)
        elif (named := str(Base.of(place, "").name)).lower() != (used := str(Base.of(base, "").name)).lower():
            warn(f"the adapter {folder} names {named} as its base, and is used on {used}")
    if None not in (known, sha256) and known != sha256:
        raise ModelError(
            f"{base}: not the model that the adapter {folder} was trained on (sha256 {str(sha256)[:12]}… here, "
            f"{str(known)[:12]}… {there}); put the old model back, or name where it is"
        )
