"""Put a run's model into MLflow's registry, with its metrics, data digest and signature: models:/NAME/VERSION."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Register the model, and print the override that selects it."""
    parser = argparse.ArgumentParser(prog="tunix_rt register", description=__doc__)
    parser.add_argument("run", help="a name, a prefix or `last`")
    parser.add_argument("--name", required=True, help="of the registered model; each time it gets a new version")
    parser.add_argument("--uri", help="the MLflow store (default: the run's tracking.uri)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root)")
    chosen = parser.parse_args(list(arguments))

    from dataclasses import asdict

    from tunix_rt.files import to_json
    from tunix_rt.runs.folder import find_run
    from tunix_rt.terminal import out
    from tunix_rt.tracking.registry import register

    made = register(find_run(Path(chosen.root), chosen.run), chosen.name, chosen.uri)
    if chosen.json:
        out(to_json(asdict(made)))
    else:
        out(f"{made.uri} in {made.store} (sha256 {made.digest[:16]}, MLflow run {made.run_id})")
        out(f"use it: model.source={made.uri} tokenizer=pretrained")
    return 0
