"""No training: `model/` stands for the start model, which is then asked as it is."""

from __future__ import annotations

from pathlib import Path

from tunix_rt.checked import replaced
from tunix_rt.config.model import LoraAdapter
from tunix_rt.files import JsonObject, copy_file, write_json
from tunix_rt.models.adapter_folder import ADAPTER_WEIGHTS, BASE, check_quantize
from tunix_rt.models.content import check_base, folder_digest
from tunix_rt.models.folder import ADAPTER_CONFIG, GENERATION, copy_tokenizer
from tunix_rt.models.reference import Reference, write_reference
from tunix_rt.runs.folder import RunFolder


def keep_start(run: RunFolder, start: Path, adapter: LoraAdapter | None) -> JsonObject:
    """Write `model/` of a run that trains nothing, and its empty logs; returns facts for the record.

    Without an adapter it refers to `start` by its content; with one from a folder it holds that adapter, which a
    training would go on from. Raises ModelError if the adapter does not belong to `start`.
    """
    quantize = None if adapter is None else adapter.quantize
    with replaced(run.model) as part:
        if adapter is None or adapter.path is None:
            write_reference(part, Reference(folder_digest(start), quantize))
        else:
            _copy_adapter(Path(adapter.path).expanduser(), start, adapter, part)
    for log in (run.metrics_log, run.timings_log, run.metrics_log.with_name("sessions.jsonl")):
        log.touch()
    return {"steps_done": 0, "tokens": 0, "model_digest": folder_digest(run.model)}


def _copy_adapter(folder: Path, start: Path, adapter: LoraAdapter, part: Path) -> None:
    """The adapter with the tokenizer of its base, as training leaves one; `base.json` says what it was asked on."""
    sha256 = folder_digest(start)
    check_quantize(folder, adapter.quantize)
    check_base(folder, start, sha256)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        copy_file(folder / name, part / name)
    write_json(part / BASE, {"sha256": sha256, **({"quantize": adapter.quantize} if adapter.quantize else {})})
    copy_tokenizer(start, part)
    if (start / GENERATION).exists():
        copy_file(start / GENERATION, part / GENERATION)
