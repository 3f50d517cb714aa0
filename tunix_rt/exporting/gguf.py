"""A run's model, or its adapter alone, as a GGUF file, for llama.cpp and all that is built on it."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.config.choices import GgufDtype
from tunix_rt.errors import InputError
from tunix_rt.exporting.run import TO_EXPORT, place_for
from tunix_rt.inference.trained import trained_model, whole_model
from tunix_rt.models.folder import is_adapter
from tunix_rt.models.gguf_adapter import write_gguf_adapter
from tunix_rt.models.gguf_write import require_package, write_gguf
from tunix_rt.models.sources import opened
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.prepared import PreparedData


def export_gguf(run: RunFolder, chosen: Path | None, dtype: GgufDtype) -> Path:
    """Write the run's model, an adapter merged with its base, into one GGUF file; returns where it is.

    Raises InputError (not finished), ModelError (what GGUF cannot say), MissingExtra.
    """
    run.check_finished(TO_EXPORT)
    require_package()
    file = place_for(run, chosen, f"-{dtype}.gguf")
    with whole_model(run, "exported") as model:
        write_gguf(model, file, dtype, run.name)
    return file


def export_adapter(run: RunFolder, chosen: Path | None, dtype: GgufDtype) -> Path:
    """The same of its adapter alone. Raises InputError also if its model is a whole one."""
    run.check_finished(TO_EXPORT)
    trained = trained_model(run)
    if not is_adapter(trained):
        raise InputError(f"{run.name}: its model is a whole one, not an adapter; leave --adapter out")
    file = place_for(run, chosen, f"-adapter-{dtype}.gguf")
    base, _ = opened(trained, PreparedData(run.data_folder).model_folder)
    write_gguf_adapter(trained, base, file, dtype, run.name)
    return file
