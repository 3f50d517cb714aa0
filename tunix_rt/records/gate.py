"""The run that a gate compares with: one that is here, or that of a registered model, fetched from its tracker."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tunix_rt.comparison.gate import GateResult, passes
from tunix_rt.config.gate import GateConfig
from tunix_rt.config.load import check_section
from tunix_rt.errors import InputError, ModelError
from tunix_rt.files import JsonObject, read_json, write_json, write_jsonl
from tunix_rt.runs.folder import RunFolder, find_run
from tunix_rt.tracking.content import PREDICTIONS
from tunix_rt.tracking.registry import ModelStore

REGISTERED = re.compile(r"models:/[^/:@]+(@[^/:@]+|/[1-9][0-9]*)")
RECORDS = ("config.yaml", "data.json", PREDICTIONS)
RUN_TAG = "tunix_rt.run"
NUMBERS = ("must_not_drop_by", "confidence")


def check_gates(
    run: RunFolder, gates: Sequence[GateConfig], root: Path, store: Callable[[], ModelStore]
) -> list[GateResult]:
    """How a run does at each gate; other runs are below `root`, registered models in `store`, if any is named.

    Raises InputError (no such run, or not comparable), ModelError, StoreError.
    """
    return [passes(run, _baseline(gate.against, root, store), gate) for gate in gates]


def declared_gate(words: Sequence[str]) -> GateConfig:
    """The gate that KEY=VALUE words declare. Raises InputError."""
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"{word!r}: expected KEY=VALUE, such as against=RUN")
        found[key] = _number(value) if key in NUMBERS else value
    gate: GateConfig = check_section("gate", GateConfig, found)
    return gate


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _baseline(word: str, root: Path, opened: Callable[[], ModelStore]) -> RunFolder:
    if not word.startswith("models:"):
        return find_run(root, word)
    if REGISTERED.fullmatch(word) is None:
        raise ModelError(f"against={word}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    store = opened()
    model = store.pinned(word)
    name = store.tags(model).get(RUN_TAG, "")
    here = RunFolder(root / name)
    return here if name and here.items.exists() else _fetched(model, name, root, store)


def _fetched(model: str, name: str, root: Path, store: ModelStore) -> RunFolder:
    """The verdicts of a registered run that is not here, as a run folder that holds nothing else."""
    run = RunFolder(root / ".registered" / model.removeprefix("models:/").replace("/", "-") / name)
    if not (run.path / "stages.json").exists():
        run.path.mkdir(parents=True, exist_ok=True)
        store.fetch_records(model, RECORDS, run.path)
        table = read_json(run.path / PREDICTIONS)
        write_jsonl(run.path / "items.jsonl", [_item(table["columns"], row) for row in table["data"]])
        write_json(run.path / "stages.json", {"evaluate": {"state": "done"}})
    return run


def _item(columns: Sequence[str], row: Sequence[object]) -> JsonObject:
    return dict(zip(columns, row, strict=True))
