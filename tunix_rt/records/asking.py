"""The trained model of a run, asked something else: the run's config, with its model as the model as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunix_rt.config.change import asked_as_it_is
from tunix_rt.config.load import check
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import InputError
from tunix_rt.files import JsonObject
from tunix_rt.inference.trained import trained_model
from tunix_rt.models.content import folder_digest
from tunix_rt.models.folder import is_adapter
from tunix_rt.models.reference import check_start, is_reference
from tunix_rt.runs.folder import RunFolder, from_here
from tunix_rt.traces.prepared import PreparedData

DRAWN = ("fresh", "scratch")
"""Kinds of models whose weights are in the prepared data of the run that drew them."""
OWN_TOKENIZER: JsonObject = {"kind": "pretrained", "added_tokens": []}
"""Tokens that were added in training are in the model's folder."""


def asking(
    base: RunFolder, recorded: JsonObject, overrides: Sequence[str], registered: str | None = None
) -> ExperimentConfig:
    """The experiment that asks the model of `base` what `overrides` say, and trains nothing.

    `recorded`: the config of `base`; `registered`: `models:/NAME/VERSION`, if its model is taken from there. Raises
    ConfigError, InputError (no model there), ModelError, DataError (the model has changed).
    """
    return check(asked_as_it_is(recorded, overrides, _opened(base, recorded, registered)))


def _opened(base: RunFolder, recorded: JsonObject, registered: str | None) -> JsonObject:
    """The sections `model` and `tokenizer` that open the trained model."""
    if registered is not None:
        return _whole({"kind": "registry", "uri": registered})
    if base.stages().get("train", {}).get("state") != "done":
        raise InputError(f"{base.name}: its stage train is not finished; run its command again first")
    trained = trained_model(base)
    if not is_adapter(trained) and not is_reference(trained):
        return _whole(_folder(trained))
    model: dict[str, Any] = dict(recorded["model"])
    start = PreparedData(base.data_folder)
    if is_reference(trained) and start.is_whole:
        check_start(trained, start.model_folder, folder_digest(start.model_folder))
    tokenizer = recorded["tokenizer"]
    if model["source"]["kind"] in DRAWN:
        model["source"], tokenizer = _folder(start.model_folder), OWN_TOKENIZER
    if is_adapter(trained):
        model["adapter"] = {**model["adapter"], "path": str(from_here(trained.resolve()))}
    return {"model": model, "tokenizer": tokenizer}


def _whole(source: JsonObject) -> JsonObject:
    return {"model": {"source": source, "adapter": None, "stop_tokens": []}, "tokenizer": OWN_TOKENIZER}


def _folder(path: Path) -> JsonObject:
    return {"kind": "folder", "path": str(from_here(path.resolve()))}
