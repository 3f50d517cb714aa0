"""The trained model of a run, returned only if its bytes are those that training wrote."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunix_rt.checked import damage
from tunix_rt.errors import InputError, ModelError
from tunix_rt.models.adapter_merge import merge
from tunix_rt.models.content import folder_digest
from tunix_rt.models.folder import is_adapter
from tunix_rt.models.reference import is_reference
from tunix_rt.models.sources import opened, to_load
from tunix_rt.runs.folder import RunFolder
from tunix_rt.terminal import warn
from tunix_rt.traces.prepared import PreparedData

REMEDY = "bring the file back, or run its command again: it trains again, from the last checkpoint on"


def trained_model(run: RunFolder, full: bool = False) -> Path:
    """The model folder, checked against the record of the stage `train`; `full` reads every byte.

    Raises InputError if there is none yet, ModelError naming the file if one was changed.
    """
    if not run.model.is_dir():
        raise InputError(f"{run.name}: no trained model there yet; run its command again to finish it")
    record = run.stages().get("train", {})
    files = {name: sealed for name, sealed in record.get("outputs", {}).items() if name.startswith("model/")}
    for line in damage(run.model.parent, files, full):
        raise ModelError(f"{line}; {REMEDY}")
    if record.get("model_digest") not in (None, _digest(run.model, full and not files)):  # not read twice
        raise ModelError(f"{run.model}: not the model that was trained (its digest in stages.json differs); {REMEDY}")
    return run.model


@contextmanager
def whole_model(run: RunFolder, done: str) -> Iterator[Path]:
    """The run's model as a folder that is usable on its own, while the block runs: an adapter is merged into its base.

    `done`: what is done with it, for the sentence that says that it is not quantised. Raises as `trained_model`.
    """
    trained = trained_model(run)
    if not is_reference(trained) and not is_adapter(trained):
        yield trained
        return
    start = PreparedData(run.data_folder).model_folder
    if is_reference(trained):
        model, _, quantize = to_load(trained, start)
        if quantize is not None:
            warn(f"{run.name} asked the model with its matrices in {quantize}; its full weights are {done}")
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        base, _ = opened(trained, start)
        merge(trained, base, Path(folder))
        yield Path(folder)


def _digest(model: Path, full: bool) -> str:
    try:
        return folder_digest(model, full)
    except ModelError as error:
        raise ModelError(f"{error}; {REMEDY}") from None
