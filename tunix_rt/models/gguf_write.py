"""A model folder → a GGUF file, by the package `gguf`: the inverse of `gguf.convert`.

A tensor is read, turned and written before the next one: the whole model is never in memory. Types are those of
llama.cpp's converter: vectors and what chooses experts stay float32, and a matrix whose rows are no multiple of a block
is float16 in a file of Q8_0.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunix_rt.config.choices import GgufDtype as Dtype
from tunix_rt.errors import MissingExtra, ModelError
from tunix_rt.files import atomic_path
from tunix_rt.hints import install
from tunix_rt.models.families.architecture import Shape
from tunix_rt.models.folder import Float32, read_architecture, weight_reader
from tunix_rt.models.gguf_config import ROPE_FACTORS
from tunix_rt.models.gguf_families import family_of, longest_context
from tunix_rt.models.gguf_layout import Stored, layout
from tunix_rt.models.gguf_metadata import Keys, model_keys, rope_factors
from tunix_rt.models.gguf_vocabulary import template_of, vocabulary_keys
from tunix_rt.terminal import progress, warn

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

FILE_TYPES: dict[Dtype, str] = {
    "F32": "ALL_F32",
    "F16": "MOSTLY_F16",
    "BF16": "MOSTLY_BF16",
    "Q8_0": "MOSTLY_Q8_0",
}
"""`general.file_type` of each, as a member of `gguf.LlamaFileType`."""
QUANTIZATION_VERSION = 2
"""`general.quantization_version`: of the layout of quantised blocks (ggml.h, GGML_QNT_VERSION)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a file that is written."""

    name: str
    shape: Shape
    dtype: Dtype
    values: Float32 | Callable[[], Float32]
    """What is written, float32, or what reads it."""


def write_gguf(folder: Path, target: Path, dtype: Dtype, name: str) -> None:
    """Write the model of a folder, with its tokenizer and chat template, into the file `target`, whole or not at all.

    `name`: what the file says it is called. Raises ModelError: a model or tokenizer that GGUF cannot say; MissingExtra.
    """
    architecture = read_architecture(folder)
    require_package()
    family, read = family_of(architecture), weight_reader(folder)
    if (longest := longest_context(architecture, family)) < architecture.max_positions:
        warn(f"GGUF cannot say the windows of {architecture.family}: written for contexts of up to {longest:,} tokens")
    entries = []
    if (factors := rope_factors(architecture, family)) is not None:
        entries.append(Entry(ROPE_FACTORS, factors.shape, "F32", factors))
    for stored in layout(architecture):
        chosen = "F32" if stored.is_whole else dtype
        entries.append(Entry(stored.name, stored.shape, chosen, partial(_read, read, stored)))
    keys = general_keys("model", name, dtype) | model_keys(architecture, family)
    keys |= vocabulary_keys(folder, architecture.vocab_size)
    write_file(target, family.name, keys, entries, template_of(folder))


def _read(read: Callable[[str], Float32], stored: Stored) -> Float32:
    return stored.to_file([read(tensor.name) for tensor in stored.tensors])


def require_package() -> None:
    """Raises MissingExtra without the package `gguf`."""
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra(f"writing a GGUF file needs the package gguf: {install('gguf')}") from None


def general_keys(kind: str, name: str, dtype: Dtype) -> Keys:
    """What the file is."""
    from gguf import LlamaFileType

    keys: Keys = {"type": kind, "name": name, "file_type": int(LlamaFileType[FILE_TYPES[dtype]])}
    keys |= {"quantization_version": QUANTIZATION_VERSION} if dtype == "Q8_0" else {}
    return {f"general.{key}": value for key, value in keys.items()}


def write_file(target: Path, architecture: str, keys: Keys, entries: list[Entry], template: Any = None) -> None:
    """Write keys and tensors, with a bar; the file has its name when it is complete."""
    with atomic_path(target) as part:
        from gguf import GGUFWriter

        writer = GGUFWriter(part, architecture)
        try:
            _add_keys(writer, keys)
            if template is not None:
                writer.add_chat_template(template)
            for entry in entries:
                kind, size = _kind_and_size(entry)
                writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), size, raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            with progress(f"writing {target.name}", len(entries), "tensors") as bar:
                for entry in entries:
                    with _full_disk_said():
                        writer.write_tensor_data(_rounded(target, entry))
                    bar.advance()
        finally:
            writer.close()


@contextmanager
def _full_disk_said() -> Iterator[None]:
    """numpy says that fewer numbers were written than there are, without the operating system's reason."""
    try:
        yield
    except OSError as error:
        error.errno = error.errno or errno.ENOSPC
        raise


def _add_keys(writer: GGUFWriter, keys: Keys) -> None:
    adds: dict[type, Callable[[str, Any], None]] = {
        str: writer.add_string,
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        list: writer.add_array,
    }
    for key, value in keys.items():
        adds[type(value)](key, value)


def _kind_and_size(entry: Entry) -> tuple[GGMLQuantizationType, int]:
    """The type in the file, and the bytes that the tensor takes."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType[entry.dtype]
    block, size = GGML_QUANT_SIZES[kind]
    if entry.shape[-1] % block:
        kind = GGMLQuantizationType.F16
        block, size = GGML_QUANT_SIZES[kind]
    return kind, int(np.prod(entry.shape)) // block * size


def _rounded(target: Path, entry: Entry) -> np.ndarray[Any, Any]:
    from gguf.quants import quantize

    kind, _ = _kind_and_size(entry)
    read = entry.values() if callable(entry.values) else entry.values
    with np.errstate(over="ignore"):
        values: np.ndarray[Any, Any] = quantize(np.ascontiguousarray(read), kind)
    if values.dtype == np.float16 and not np.isfinite(values).all():
        raise ModelError(f"{target}: {entry.name} has values beyond those of F16; --dtype BF16 or F32")
    return values
