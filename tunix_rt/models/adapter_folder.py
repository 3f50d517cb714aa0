"""An adapter folder in PEFT's layout: read it, write it, and to which base it belongs.

    adapter_config.json          numbers and targets, as `peft` (0.21) reads and writes them
    adapter_model.safetensors    float32
    base.json                    the sha256 of the base (`content.folder_digest`), and `quantize`, if it was quantised;
                                 adapters from elsewhere have none

A config field that would change the mathematics but is not supported here is refused by name (`adapter_fields`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from tunix_rt.config.choices import Quantization
from tunix_rt.config.model import LoraAdapter
from tunix_rt.errors import ModelError
from tunix_rt.files import JsonObject, write_json
from tunix_rt.models.adapter import PREFIX, Adapter, declared, fresh, linear, module_name, outside, short_names
from tunix_rt.models.adapter_fields import check_fields
from tunix_rt.models.adapter_targets import exceptions, targets
from tunix_rt.models.families.architecture import Architecture
from tunix_rt.models.families.fields import Fields
from tunix_rt.models.families.names import Tensor
from tunix_rt.models.folder import (
    ADAPTER_CONFIG,
    Weights,
    check_same,
    read_object,
)
from tunix_rt.models.tensor_file import read_tensors, write_weights
from tunix_rt.models.wrapped import of_text

ADAPTER_WEIGHTS = "adapter_model.safetensors"
BASE = "base.json"
FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE)

SNAPSHOT = re.compile(r"models--([^/]+)/snapshots/([0-9a-f]+)$")


@dataclass(frozen=True, slots=True)
class Base:
    """The model that an adapter was trained on."""

    name: str | None
    """A local folder, or a name on the Hugging Face hub."""
    revision: str | None
    """Revision of the hub model."""
    sha256: str | None
    """Hash of its content; None: not known."""
    quantize: Quantization | None = None
    """How its matrices were held in training (`model.adapter.quantize`); answers are computed on the same."""

    @classmethod
    def of(cls, folder: Path, sha256: str) -> Base:
        """A folder with its digest; a folder in the hub's cache is named as on the hub."""
        found = SNAPSHOT.search(folder.as_posix())
        name, revision = (found[1].replace("--", "/"), found[2]) if found else (str(folder), None)
        return cls(name, revision, sha256)


def write_adapter(
    folder: Path, architecture: Architecture, adapter: Adapter, weights: Weights, base: Base
) -> dict[str, str]:
    """Write the three files into a folder, created if missing; `weights` under PEFT's names, float32.

    Returns the hex SHA-256 of each file by name.
    """
    config: JsonObject = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "revision": base.revision,
        "r": adapter.rank,
        "lora_alpha": _plain(adapter.alpha),
        "rank_pattern": {name: rank for name, rank, _ in adapter.exceptions if rank != adapter.rank},
        "alpha_pattern": {name: _plain(alpha) for name, _, alpha in adapter.exceptions if alpha != adapter.alpha},
        "lora_dropout": adapter.dropout,
        "use_rslora": adapter.rslora,
        "target_modules": list(short_names(adapter.modules, linear(architecture))),
        "fan_in_fan_out": any(module.transposed for module in adapter.modules),
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    return {
        ADAPTER_WEIGHTS: write_weights(folder / ADAPTER_WEIGHTS, weights),
        ADAPTER_CONFIG: write_json(folder / ADAPTER_CONFIG, config),
        BASE: write_json(
            folder / BASE, {"sha256": base.sha256, **({"quantize": base.quantize} if base.quantize else {})}
        ),
    }


def _plain(number: float) -> float:
    """An integer where it is one, as `peft` writes it."""
    return int(number) if number == int(number) else number


def read_base(folder: Path) -> Base:
    """The base that an adapter folder names. Raises ModelError if the folder is not an adapter or is damaged."""
    config = _config(folder)
    recorded = read_object(folder / BASE, optional=True)
    quantize = recorded.get("quantize")
    if quantize not in (None, *get_args(Quantization)):
        raise ModelError(
            f"{folder / BASE}: quantize: {quantize!r}, expected one of {', '.join(get_args(Quantization))}"
        )
    name, revision = config.get("base_model_name_or_path") or None, config.get("revision")
    return Base(name, revision, recorded.get("sha256"), quantize)


def read_adapter(folder: Path, architecture: Architecture) -> tuple[Adapter, Weights]:
    """An adapter on the layers of a model, and its tensors (float32, under PEFT's names).

    Raises ModelError: missing, damaged or not supported, or tensors that do not fit the model (both sides).
    """
    files = read_files(folder)
    _refuse_outside(files, architecture)
    return adapter_of(files, files.weights, linear(architecture)), files.weights


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter folder as it was read."""

    folder: Path
    fields: Fields
    weights: Weights
    """float32, under PEFT's names; of an adapter on a model that also reads images, those of its text part."""
    outer: str
    """What names of layers begin with in the model that it was trained on, of which targets and patterns speak."""
    own: str
    """The same in the text part; both are "" if that is the whole model."""

    def there(self, module: Tensor) -> Tensor:
        """A matrix by its name in the model that the adapter was trained on."""
        if not module.name.startswith(self.own):
            return module
        return replace(module, name=self.outer + module.name.removeprefix(self.own))


def read_files(folder: Path) -> AdapterFiles:
    """The checked fields and the tensors of an adapter folder. Raises ModelError: missing, damaged, not supported."""
    fields = Fields(_config(folder), str(folder / ADAPTER_CONFIG))
    check_fields(fields)
    if not (folder / ADAPTER_WEIGHTS).is_file():
        found = (folder / "adapter_model.bin").is_file()
        hint = "; of adapter_model.bin peft's from_pretrained and save_pretrained(FOLDER) make it" if found else ""
        raise ModelError(f"{folder}: missing {ADAPTER_WEIGHTS} (only safetensors is read){hint}")
    stored = read_tensors(folder / ADAPTER_WEIGHTS)
    text, (outer, own) = of_text(folder, (name.removeprefix(PREFIX) for name in stored))
    weights = {PREFIX + here: stored[PREFIX + name] for name, here in text.items()}
    return AdapterFiles(folder, fields, weights, outer, own)


def adapter_of(files: AdapterFiles, weights: Weights, among: tuple[Tensor, ...]) -> Adapter:
    """The adapter with these of its tensors on matrices `among` those of a model. ModelError: they do not fit."""
    fields, there = files.fields, {files.there(module): module for module in among}
    rank, alpha, chosen = fields.count("r"), fields.number("lora_alpha"), targets(fields, tuple(there))
    if chosen is None:
        named = {name.removeprefix(PREFIX).partition(".lora_")[0] for name in weights}
        chosen = tuple(module for module, here in there.items() if module_name(here) in named)
    own = {module_name(module): module_name(there[module]) for module in chosen}
    adapter = Adapter(
        rank=rank,
        alpha=alpha,
        rslora=bool(fields.config.get("use_rslora")),
        dropout=float(fields.config.get("lora_dropout") or 0.0),
        modules=tuple(there[module] for module in chosen),
        exceptions=tuple((own[name], r, a) for name, r, a in exceptions(fields, chosen)),
    )
    found = {name: tensor.shape for name, tensor in weights.items()}
    check_same(f"{files.folder}: the weights do not fit {ADAPTER_CONFIG} and the model:", found, adapter.shapes)
    return adapter


def _refuse_outside(files: AdapterFiles, architecture: Architecture) -> None:
    """Refuse what an adapter changes outside of the layers: it can be merged, but not applied or trained by itself."""
    folder, fields = files.folder, files.fields
    way = f"it can be opened as a model, merged with its base: model=from_path model.source.path={folder}"
    if saved := fields.config.get("modules_to_save"):
        raise fields.refuse("modules_to_save", f"{saved!r} were trained whole, which does not go on here; {way}")
    if chosen := targets(fields, tuple(map(files.there, outside(architecture)))):
        names = ", ".join(module_name(module) for module in chosen)
        raise fields.refuse("target_modules", f"{names}: outside of the layers, which is not trained here; {way}")
    if whole := [name for name in files.weights if ".lora_" not in name]:
        raise ModelError(f"{folder / ADAPTER_WEIGHTS}: holds whole tensors ({', '.join(whole[:3])}); {way}")


def _config(folder: Path) -> JsonObject:
    if not (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(f"{folder}: no {ADAPTER_CONFIG}, so this is not an adapter in PEFT's layout")
    return read_object(folder / ADAPTER_CONFIG)


def start(config: LoraAdapter, architecture: Architecture, seed: int) -> tuple[Adapter, Weights]:
    """The adapter that training starts from: a fresh one, or that of `config.path`.

    Matrices with a rank or alpha of their own keep it. Raises ModelError if the folder's adapter is not the declared
    one: each difference, both sides.
    """
    adapter = declared(config, architecture)
    if config.path is None:
        return adapter, fresh(adapter, seed)
    folder = Path(config.path).expanduser()
    found, weights = read_adapter(folder, architecture)
    there, here = (
        {"rank": one.rank, "alpha": one.alpha, "rslora": one.rslora}
        | {"target": ", ".join(short_names(one.modules, linear(architecture)))}
        for one in (found, adapter)
    )
    check_same(f"{folder}: not the adapter that is declared:", there, here, "model.adapter")
    return replace(found, dropout=adapter.dropout), weights


def check_quantize(folder: Path, quantize: Quantization | None) -> None:
    """Refuse to go on with an adapter whose base was quantised in another way; one from elsewhere does not say."""
    base = read_base(folder)
    if base.sha256 is not None and base.quantize != quantize:
        raise ModelError(
            f"{folder}: was trained on a base with quantize={base.quantize or 'null'}, and would be trained further on "
            f"one with {quantize or 'null'}; declare model.adapter.quantize={base.quantize or 'null'}"
        )
