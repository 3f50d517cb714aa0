"""A run's model as a GGUF file, for llama.cpp and all that is built on it."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.config.choices import GgufDtype
from tunix_rt.exporting.run import check_finished, place
from tunix_rt.inference.trained import whole_model
from tunix_rt.models.gguf_write import require_package, write_gguf
from tunix_rt.runs.folder import RunFolder


def export_gguf(run: RunFolder, chosen: Path | None, dtype: GgufDtype) -> Path:
    """Write the run's model, an adapter merged with its base, into one GGUF file; returns where it is.

    Raises InputError (not finished), ModelError (what GGUF cannot say), MissingExtra.
    """
    check_finished(run)
    require_package()
    file = place(run, chosen, f"-{dtype}.gguf")
    with whole_model(run, "exported") as model:
        write_gguf(model, file, dtype, run.name)
    return file
