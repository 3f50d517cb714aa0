"""Run a recorded run, or every member of a sweep, again and say EQUAL, or the first difference: which file, which step,
which number.

A sweep's ranking is made again from the new runs and compared too. Exit code 0: equal; 5: different; 2: the data have
changed (the file is named).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from tunix_rt.commands import Parser
from tunix_rt.errors import GateError
from tunix_rt.files import to_json
from tunix_rt.terminal import out, warn

if TYPE_CHECKING:
    from tunix_rt.records.reproduce import Reproduction
    from tunix_rt.sweeps.reproduce import SweepReproduction


def main(arguments: Sequence[str]) -> int:
    """Reproduce a run or a sweep and say how it compares."""
    parser = Parser("reproduce", __doc__, "--json", "--root")
    parser.add_argument(
        "what", metavar="run", help="a run (a name, a prefix or `last`), or a sweep (EXPERIMENT/sweep-…)"
    )
    parser.add_argument("overrides", nargs="*", help="hardware.KEY=VALUE and the like: where it runs, not what")
    parser.add_argument("--strict", action="store_true", help="refuse other code, lock or versions than recorded")
    chosen = parser.parse(arguments)

    from tunix_rt.records.reproduce import reproduce
    from tunix_rt.runs.folder import find_run
    from tunix_rt.runs.sweep import find_sweep

    result: Reproduction | SweepReproduction
    if (sweep := find_sweep(chosen.root, chosen.what)) is None:
        result = reproduce(find_run(chosen.root, chosen.what), chosen.overrides, chosen.strict)
        lines = [] if chosen.json else _of_run(result)
    else:
        from tunix_rt.sweeps.reproduce import reproduce_sweep

        result = reproduce_sweep(sweep, chosen.overrides, chosen.strict)
        lines = [] if chosen.json else _of_sweep(result)
    out(to_json(asdict(result)) if chosen.json else "\n".join(lines))
    return 0 if result.equal else GateError.exit_code


def _of_run(result: Reproduction) -> list[str]:
    for line in result.environment:
        warn(f"not as recorded: {line}")
    verdict = f"EQUAL {_how(result.exact)}: {', '.join(result.compared)}"
    return [
        verdict if result.equal else f"DIFFERENT: {result.difference}",
        *([f"what it begins from run again in {result.earlier}"] if result.earlier else []),
        f"{result.of} run again in {result.folder}",
    ]


def _of_sweep(result: SweepReproduction) -> list[str]:
    for line in dict.fromkeys(line for member in result.members for line in member.environment):
        warn(f"not as recorded: {line}")
    for name in result.left_out:
        warn(f"left out, since it did not finish: {name}")
    equal = sum(member.equal for member in result.members)
    ranking = " and the ranking" if result.exact else ""
    if result.equal:
        return [f"EQUAL {_how(result.exact)}: {equal} members{ranking} of {result.of}"]
    return [
        f"DIFFERENT: {result.differences[0]}",
        *result.differences[1:],
        f"{equal} of {len(result.members)} members of {result.of} are equal",
    ]


def _how(exact: bool) -> str:
    from tunix_rt.records.reproduce import TOLERANCE

    return "bit for bit" if exact else f"within tolerances, since the environments differ ({TOLERANCE})"
