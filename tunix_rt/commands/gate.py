"""Is a run at least as good as an earlier one? Exit code 0 or 5, and one line for each gate.

`gate RUN against=OTHER must_not_drop_by=0.01` passes if accuracy is at most one point lower with a confidence of 95 %,
paired by prompt; `metric=` and `confidence=` say otherwise. OTHER is a run or a registered model (models:/NAME@ALIAS).
Without these words, the gates that RUN declares (`run.gates`) are tried. What cannot be compared has exit code 2.
Registered models are looked up in RUN's own `tracking.uri`, or in one that is given here (tracking.uri=…).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunix_rt.commands import Parser
from tunix_rt.errors import GateError, InputError
from tunix_rt.files import to_json
from tunix_rt.terminal import out

if TYPE_CHECKING:
    from tunix_rt.config.gate import GateConfig
    from tunix_rt.runs.folder import RunFolder
    from tunix_rt.tracking.registry import ModelStore

URI = "tracking.uri="


def main(arguments: Sequence[str]) -> int:
    """Try the gates of a run."""
    parser = Parser("gate", __doc__, "run", "--json", "--root")
    help = "against=RUN must_not_drop_by=AMOUNT metric=NAME confidence=0.95"
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help=help)
    chosen = parser.parse(arguments)

    from tunix_rt.config.execution import RunConfig
    from tunix_rt.config.load import check_section
    from tunix_rt.config.section import hints_of
    from tunix_rt.records.gate import declared_gate
    from tunix_rt.tracking.content import read_tracking
    from tunix_rt.tracking.registry import ModelStore
    from tunix_rt.tracking.stores._mlflow_uri import resolve

    places = [word for word in chosen.settings if word.startswith(URI)]
    words = [word for word in chosen.settings if word not in places]
    uri = resolve(places[-1].removeprefix(URI), Path.cwd()) if places else None
    if words:
        gates = (declared_gate(words),)
    else:
        declared = chosen.run.read_config().get("run", {}).get("gates", [])
        gates = check_section("run.gates", hints_of(RunConfig)["gates"], declared)
    if not gates:
        raise InputError(f"{chosen.run.name} declares no gate (run.gates): against=RUN must_not_drop_by=0.01")
    run: RunFolder = chosen.run
    return report(run, gates, chosen.root, lambda: ModelStore.of(read_tracking(run, uri), Path.cwd()), chosen.json)


def report(
    run: RunFolder, gates: Sequence[GateConfig], root: Path, store: Callable[[], ModelStore], json: bool = False
) -> int:
    """Try the gates, print how it went, and return the exit code. Raises as `records.gate.check_gates` does."""
    from tunix_rt.records.gate import check_gates

    results = check_gates(run, gates, root, store)
    passed = all(result.passed for result in results)
    if json:
        out(to_json({"passed": passed, "gates": [result.facts for result in results]}))
    else:
        out("\n".join(result.line for result in results))
    return 0 if passed else GateError.exit_code
