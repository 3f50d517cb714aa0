"""A source of weights → a local model folder in the Hugging Face layout, and a digest of its content.

A folder is used in place; a hub model is in the hub client's own cache (`hub.py`); a GGUF file is converted, an
adapter merged with its base, the text part of a larger model taken out and a registered model fetched once into our
cache, under a lock, and found again by its content.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Protocol, TypeVar

from tunix_rt.checked import damage, replaced, seal, sha256_of
from tunix_rt.config.choices import Quantization
from tunix_rt.config.model import FolderModel, GgufModel, HubModel, RegistryModel, parts_of
from tunix_rt.errors import DataError, MachineError, MissingExtra, ModelError
from tunix_rt.files import apply_umask, digest, read_json, write_json
from tunix_rt.hints import install
from tunix_rt.models import gguf, hub, wrapped
from tunix_rt.models.adapter_folder import Base, read_base
from tunix_rt.models.adapter_merge import merge
from tunix_rt.models.content import MADE, check_base, folder_digest
from tunix_rt.models.folder import CONFIG, is_adapter
from tunix_rt.models.reference import check_start, is_reference, read_reference
from tunix_rt.terminal import warn

T = TypeVar("T")
MERGING = "name its folder with `python -m tunix_rt merge ADAPTER OUT --base FOLDER`"
Source = HubModel | FolderModel | GgufModel | RegistryModel


class Store(Protocol):
    """A model registry. (`tracking/registry.py` implements MLflow's; this module does not depend on it.)"""

    def digest(self, model: str) -> str:
        """`folder_digest` of `models:/NAME/VERSION` when it was registered."""

    def fetch(self, model: str, folder: Path) -> None:
        """Write its model folder to `folder`, which does not exist yet."""


def materialise(source: Source, cache: Path, store: Store | None = None) -> Path:
    """The local model folder of a source. `cache` (created if missing) holds what is converted or fetched.

    Raises ModelError if there is no such model or its content has changed, MachineError if it cannot be fetched,
    MissingExtra if the package that ships it is not installed.
    """
    if isinstance(source, RegistryModel):
        assert store is not None, source.uri
        return _registered(source, cache, store)
    if isinstance(source, FolderModel):
        folder = _folder(source)
        if is_adapter(folder):
            return _with_base(folder, content_digest(source), cache)
        return _text_part(folder, folder.name, source, cache)
    if isinstance(source, HubModel):
        return _text_part(hub.snapshot(source), PurePath(source.name).name, source, cache)
    file = _file(source)
    return made_once(cache / f"{file.stem}-{content_digest(source)[:12]}", lambda part: gguf.convert(file, part))


def content_digest(source: Source, store: Store | None = None) -> str:
    """The content of the source, as a hex sha256 of a file's or a folder's bytes.

    For a hub model it is the name and the commit, which fixes the content; a branch or tag is resolved to its commit.
    """
    if isinstance(source, RegistryModel):
        assert store is not None, source.uri
        return store.digest(source.uri)
    if isinstance(source, HubModel):
        return digest({"hub": source.name, "revision": hub.commit_of(source)})
    if isinstance(source, GgufModel):
        return digest({"gguf": sha256_of(_file(source)), "conversion": gguf.VERSION})
    folder = _folder(source)
    if is_adapter(folder):
        return digest({"adapter": folder_digest(folder), "base": _base_digest(folder)})
    return folder_digest(folder)


def adapter_digest(folder: Path) -> str:
    """`folder_digest` of an adapter's folder (`model.adapter.path`). Raises ModelError if it is not one."""
    read_base(folder)
    return folder_digest(folder)


def base_folder(adapter: Path) -> Path:
    """The model folder that an adapter names as its base: a local one (relative to the working directory), or one of
    the hub. Raises ModelError, MachineError.
    """
    base = read_base(adapter)
    if base.name is None:
        raise ModelError(f"{adapter}: does not say to which model it belongs; {MERGING}")
    place = Path(base.name).expanduser()
    if is_adapter(place):
        first = f"python -m tunix_rt merge {place} OUT"
        raise ModelError(f"{adapter}: its base {place} is an adapter itself; merge that first: {first}, then {MERGING}")
    if place.is_dir():
        return place
    if place.is_file():
        raise ModelError(f"{adapter}: its base {place} is a file, where a model folder is needed; {MERGING}")
    if place.is_absolute() or (base.revision is None and base.sha256 is not None):
        raise ModelError(
            f"{base.name}: no such model folder, to which the adapter {adapter} belongs; put it back, or {MERGING}"
        )
    return _of_hub(adapter, base, hub.snapshot)


def _of_hub(adapter: Path, base: Base, ask: Callable[[HubModel], T]) -> T:
    """What `ask` finds of an adapter's base on the hub; its errors name the adapter."""
    try:
        return ask(HubModel(kind="hub", name=base.name or "", revision=base.revision or "main"))
    except (ModelError, MachineError) as error:
        raise type(error)(f"{adapter}: its base is missing: {error}; or {MERGING}") from None


def _text_part(folder: Path, name: str, source: Source, cache: Path) -> Path:
    """The folder itself, or the text part of the model in it."""
    if not wrapped.is_wrapped(folder):
        return folder
    made = digest({"model": content_digest(source), "version": wrapped.VERSION})[:12]
    return made_once(cache / f"{name}-text-{made}", lambda part: wrapped.take_out(folder, part))


def _base_digest(adapter: Path) -> str:
    """The content of an adapter's base: as recorded beside the adapter, else of the model that it names."""
    base = read_base(adapter)
    if base.sha256 is not None:
        return base.sha256
    if base.name is not None and not Path(base.name).is_absolute() and not Path(base.name).expanduser().exists():
        return _of_hub(adapter, base, content_digest)
    return folder_digest(base_folder(adapter))


def _with_base(adapter: Path, sha256: str, cache: Path) -> Path:
    """The model of an adapter and the base that it names, merged once. Raises ModelError if it is another base."""

    def make(part: Path) -> None:
        base, _ = opened(adapter, base_folder(adapter))
        merge(adapter, base, part)

    return made_once(cache / f"{adapter.name}-merged-{sha256[:12]}", make)


def opened(folder: Path, base: Path) -> tuple[Path, Path | None]:
    """A trained model as `Backend.load` takes it: (model folder, adapter folder); of an adapter, (`base`, `folder`).

    Raises ModelError if the base is not the one it was trained on.
    """
    if not is_adapter(folder):
        return folder, None
    check_base(folder, base, folder_digest(base))
    return base, folder


def to_load(model: Path, start: Path) -> tuple[Path, Path | None, Quantization | None]:
    """A run's model as `Backend.load` takes it: model folder, adapter folder, how its matrices are held (None: as the
    adapter says). `start`: the model that the run started from.

    Raises ModelError if that is not the one it started from.
    """
    if not is_reference(model):
        return *opened(model, start), None
    check_start(model, start, folder_digest(start))
    return start, None, read_reference(model).quantize


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` if it is missing or damaged; one process creates it, others wait."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.is_dir() and (problem := _damaged(folder)) is None:
            return folder
        if folder.is_dir():
            warn(f"{problem}; it is made again")
        with replaced(folder) as part:
            make(part)
            apply_umask(part)
            write_json(part / MADE, seal(part))
    return folder


def _damaged(folder: Path) -> str | None:
    """The first file that has changed since it was written; None if none has, or if an earlier version wrote them."""
    if not (folder / MADE).is_file():
        return None
    try:
        return next(iter(damage(folder, read_json(folder / MADE))), None)
    except DataError as error:
        return str(error)


def _registered(source: RegistryModel, cache: Path, store: Store) -> Path:
    digest_ = store.digest(source.uri)

    def fetch(part: Path) -> None:
        store.fetch(source.uri, part)
        if folder_digest(part) != digest_:
            raise ModelError(f"{source.uri}: the store holds another content than was registered (sha256 differs)")

    folder = made_once(cache / f"{'-'.join(parts_of(source.uri))}-{digest_[:12]}", fetch)
    if folder_digest(folder) != digest_:
        raise ModelError(f"{folder}: changed since it was fetched; remove it, and {source.uri} is fetched again")
    return folder


def _folder(source: FolderModel) -> Path:
    folder = Path(source.path).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder (model.source.path)")
    if not is_adapter(folder) and not (folder / CONFIG).is_file():
        raise ModelError(f"{folder}: no {CONFIG}, so this is not a model folder (model.source.path)")
    return folder


def _file(source: GgufModel) -> Path:
    """The GGUF file, looked up in the package that ships it, without importing the package."""
    if source.package is None:
        file = Path(source.path).expanduser()
    else:
        spec = importlib.util.find_spec(source.package.partition(".")[0])
        if spec is None or not spec.submodule_search_locations:
            hint = f": {install(source.extra)}" if source.extra else ""
            raise MissingExtra(
                f"the model file {source.path} comes in the package {source.package}, which is not installed{hint}"
            )
        file = Path(spec.submodule_search_locations[0]) / source.path
    if not file.is_file():
        raise ModelError(f"{file}: no such file (model.source.path)")
    return file
