"""A model folder in the Hugging Face layout: read it, check it against its own config, write it.

Weights are float32 numpy arrays under Hugging Face names. Uses no framework.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath

import numpy as np

from tunix_rt import faults
from tunix_rt.errors import DataError, InputError, ModelError
from tunix_rt.files import JsonObject, read_json, write_json
from tunix_rt.models.families import registry
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.names import HEAD, Names
from tunix_rt.models.parts import WHOLE, PartOf, whole
from tunix_rt.models.parts import Float32 as Float32
from tunix_rt.models.shards import INDEX as INDEX_SUFFIX
from tunix_rt.models.shards import MAX_SHARD_SIZE, write_tensors
from tunix_rt.models.tensor_file import opened, readable

Weights = dict[str, Float32]

CONFIG = "config.json"
GENERATION = "generation_config.json"
MODEL = "model"
"""The stem of the names of the files with the weights."""
WEIGHTS = f"{MODEL}.safetensors"
INDEX = f"{MODEL}{INDEX_SUFFIX}"
TOKENIZER = "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
TEMPLATES = "additional_chat_templates"
"""Folder of named chat templates, as `transformers` 5 writes them: NAME.jinja."""
ADAPTER_CONFIG = "adapter_config.json"
"""In a folder that holds an adapter in PEFT's layout."""


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers of a tensor, whatever else is drawn: seeded by seed and name."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")])


def read_config(folder: Path) -> JsonObject:
    """The folder's config.json. Raises ModelError if folder or file is missing or damaged."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder")
    return read_object(folder / CONFIG)


def config_to_save(folder: Path) -> JsonObject:
    """The folder's config.json, adapted to float32 weights. Raises as `read_config`."""
    return {name: value for name, value in read_config(folder).items() if name != "torch_dtype"} | {"dtype": "float32"}


def read_architecture(folder: Path) -> Architecture:
    """The architecture of a model folder. Raises ModelError: no config.json, unsupported family or field."""
    return registry.read(read_config(folder), str(folder / CONFIG))


def read_weights(folder: Path, part_of: PartOf = whole) -> Weights:
    """Every tensor of the folder as float32, from one file or shards; half precisions are upcast.

    `part_of`: which part of each; only that is read. Raises ModelError if a file is missing, damaged or quantised, or
    does not fit config.json (lists both sides).
    """
    return dict(each_weight(folder, part_of))


def each_weight(folder: Path, part_of: PartOf = whole) -> Iterator[tuple[str, Float32]]:
    """The same, one tensor after the other, in the order of the files."""
    architecture = read_architecture(folder)
    names, expected = registry.names_of(architecture), registry.tensor_shapes(architecture)
    embedding, tied = names.whole["embedding"], Weights()
    stored = {path: _stored(path, names) for path in weight_files(folder)}
    found = {name: shape for file in stored.values() for name, (_, shape) in file.items()}
    twice = architecture.tie_embeddings and HEAD in found
    if twice:
        expected = expected | {HEAD: expected[embedding]}
    check_same(f"{folder}: the weights do not fit {CONFIG}:", found, expected)
    for path, tensors in stored.items():
        with opened(path) as file:
            for name, (called, shape) in tensors.items():
                part = part_of(embedding if twice and name == HEAD else name, shape)
                tensor = part.read(file.get_slice(called))
                if twice and name in (HEAD, embedding):
                    tied[name] = tensor
                if not twice or name != HEAD:
                    yield name, tensor
    if twice:
        _check_tied(folder, tied[HEAD], tied[embedding])


def _check_tied(folder: Path, head: Float32, embedding: Float32) -> None:
    if not np.array_equal(head, embedding):
        raise ModelError(
            f"{folder}: {HEAD} differs from the embeddings although {CONFIG} says they are tied; "
            "set tie_word_embeddings to false there"
        )


def weight_reader(folder: Path) -> Callable[[str], Float32]:
    """Reads single tensors of the folder by name, so that the whole model is never in memory. Raises as `read_weights`.

    A tied head that is stored all the same is compared with the embeddings, here, and is no tensor.
    """
    architecture = read_architecture(folder)
    names = registry.names_of(architecture)
    places = {
        name: (path, called) for path in weight_files(folder) for name, (called, _) in _stored(path, names).items()
    }

    def read(name: str) -> Float32:
        path, called = places[name]
        with opened(path) as file:
            return WHOLE.read(file.get_slice(called))

    if architecture.tie_embeddings and HEAD in places:
        _check_tied(folder, read(HEAD), read(names.whole["embedding"]))
    return read


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter in PEFT's layout, and not a model.

    Raises ModelError if it holds both: `transformers` would open the two together, `peft` the adapter alone.
    """
    adapter = (folder / ADAPTER_CONFIG).is_file()
    whole = next((name for name in (WEIGHTS, INDEX) if (folder / name).is_file()), None)
    if adapter and whole is not None:
        raise ModelError(
            f"{folder}: holds a whole model ({whole}) and an adapter ({ADAPTER_CONFIG}); which of them is meant is "
            "not guessed: move one of the two into a folder of its own"
        )
    return adapter


def refuse_adapter(folder: Path) -> None:
    """Raises ModelError, saying how an adapter is named, if the folder holds one where a model is expected."""
    if is_adapter(folder):
        raise ModelError(
            f"{folder}: an adapter ({ADAPTER_CONFIG}), not a model: model.source names its base, model/adapter=lora "
            "model.adapter.path=FOLDER the adapter; `python -m tunix_rt merge FOLDER OUT` makes one model of both"
        )


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a folder, as `shard_files`. Raises ModelError also if there is an adapter."""
    refuse_adapter(folder)
    return shard_files(folder, MODEL)


def shard_files(folder: Path, stem: str) -> tuple[Path, ...]:
    """The safetensors files that hold the tensors of `stem`, in order; they may be in subfolders.

    A single file is read before an index, as in `transformers` (5.22, modeling_utils.py,
    _get_resolved_checkpoint_files). Raises ModelError if a file is missing, or if the index places one outside of the
    folder.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}{INDEX_SUFFIX}"
    paths = _indexed(index) if index.is_file() and not single.is_file() else (single,)
    missing = [path.relative_to(folder).as_posix() for path in paths if not path.is_file()]
    if missing:
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        hint = f" (found {', '.join(pickles)}: only safetensors is read; convert it first)" if pickles else ""
        raise ModelError(f"{folder}: missing {', '.join(missing)}{hint}")
    return paths


def _indexed(index: Path) -> tuple[Path, ...]:
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f"{index}: weight_map: expected an object of tensor name → file name")
    names = sorted(set(shards.values()))
    for name in names:
        if not name or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ModelError(f"{index}: weight_map: {name!r} is not inside of the folder, and not read")
    return tuple(index.parent / name for name in names)


def check_same(
    title: str,
    found: Mapping[str, object],
    expected: Mapping[str, object],
    there: str = "the model",
    error: type[InputError] = ModelError,
) -> None:
    """Raise `error` if a folder holds another thing than `there` is expected: `title`, and a line per difference."""
    lines = [
        f"  {name}: {found.get(name, 'missing')} in the folder, {expected.get(name, 'missing')} in {there}"
        for name in dict.fromkeys([*found, *expected])
        if found.get(name) != expected.get(name)
    ]
    if lines:
        raise error("\n".join([title, *lines[:20], *([f"  … and {len(lines) - 20} more"] if len(lines) > 20 else [])]))


def _stored(path: Path, names: Names) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Maps each tensor's name to its name in the file (a bare model leaves out the base) and its shape."""
    with opened(path) as file:
        stored: dict[str, tuple[str, tuple[int, ...]]] = {}
        keys = file.keys()  # safe_open is no mapping
        for called in (key for key in keys if not key.endswith(names.constants)):
            tensor = readable(path, called, file.get_slice(called))
            name = called if called == HEAD or called.startswith(names.base) else names.base + called
            if name in stored:
                raise ModelError(f"{path}: {stored[name][0]} and {called} are one tensor under two names; leave one")
            stored[name] = (called, tuple(tensor.get_shape()))
        return stored


def read_object(path: Path, optional: bool = False) -> JsonObject:
    """The JSON object in a file of a model folder; of an `optional` file that is missing, {}. Raises ModelError."""
    if optional and not path.is_file():
        return {}
    try:
        value = read_json(path, "fetch or copy it again")
    except DataError as error:
        raise ModelError(str(error)) from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: expected a JSON object")
    return value


def write_model(
    folder: Path, config: JsonObject, weights: Mapping[str, Float32] | None, max_shard_size: int = MAX_SHARD_SIZE
) -> dict[str, str]:
    """Write config.json and, if given, the weights of that model (float32, Hugging Face names) in one or several files;
    `folder` may be missing.

    Returns the hex SHA-256 of each file by name.
    """
    written: dict[str, str] = {}
    if weights is not None:
        ordered = registry.tensor_shapes(registry.read(config, str(folder / CONFIG)))
        written = write_tensors(folder, MODEL, {name: weights[name] for name in ordered}, max_shard_size)
    return written | {CONFIG: write_json(folder / CONFIG, config)}


def read_stop_ids(folder: Path) -> tuple[int, ...]:
    """Ids that end a completion: `eos_token_id` of generation_config.json, else of config.json, else none."""
    for name in (GENERATION, CONFIG):
        value = read_object(folder / name, optional=True).get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in ids):
            raise ModelError(f"{folder / name}: eos_token_id: {value!r}, expected an integer or a list of them")
        if ids:
            return tuple(ids)
    return ()


def write_generation_config(folder: Path, stop_ids: tuple[int, ...], pad_id: int) -> None:
    """Write generation_config.json: stop ids and pad id; no sampling settings (greedy)."""
    stop = stop_ids[0] if len(stop_ids) == 1 else list(stop_ids)
    write_json(folder / GENERATION, {"eos_token_id": stop, "pad_token_id": pad_id})


def tokenizer_files(folder: Path) -> tuple[str, ...]:
    """The tokenizer's files that a folder has, chat templates included, by their paths in it."""
    templates = sorted(path.relative_to(folder).as_posix() for path in (folder / TEMPLATES).glob("*.jinja"))
    return (*(name for name in TOKENIZER_FILES if (folder / name).is_file()), *templates)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer's files, and only those. Raises ModelError if there is no tokenizer.json."""
    if not (source / TOKENIZER).is_file():
        raise ModelError(f"{source}: no {TOKENIZER} (a fast tokenizer is needed)")
    target.mkdir(parents=True, exist_ok=True)
    for name in tokenizer_files(source):
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source / name, target / name)
        faults.point("copied", target / name)
