"""Put a run's model into MLflow's registry, with its metrics, data digest and signature: models:/NAME/VERSION."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from tunix_rt.commands import Parser
from tunix_rt.files import to_json
from tunix_rt.terminal import out


def main(arguments: Sequence[str]) -> int:
    """Register the model, and print the override that selects it."""
    parser = Parser("register", __doc__, "run", "--json", "--root")
    parser.add_argument("--name", required=True, help="of the registered model; each time it gets a new version")
    parser.add_argument("--uri", help="the MLflow store (default: the run's tracking.uri)")
    chosen = parser.parse(arguments)

    from tunix_rt.tracking.registry import register

    made = register(chosen.run, chosen.name, chosen.uri)
    if chosen.json:
        out(to_json(asdict(made)))
    else:
        out(f"{made.uri} in {made.store} (sha256 {made.digest[:16]}, MLflow run {made.run_id})")
        out(f"use it: model.source={made.uri} tokenizer=pretrained")
    return 0
