"""Run a recorded run again and say EQUAL, or the first difference: which file, which step, which number.

Exit code 0: equal; 5: different; 2: the data have changed (the file is named).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from tunix_rt.commands import Parser
from tunix_rt.errors import GateError
from tunix_rt.files import to_json
from tunix_rt.terminal import out, warn


def main(arguments: Sequence[str]) -> int:
    """Reproduce a run and say how it compares."""
    parser = Parser("reproduce", __doc__, "run", "--json", "--root")
    parser.add_argument("overrides", nargs="*", help="hardware.KEY=VALUE and the like: where it runs, not what")
    parser.add_argument("--strict", action="store_true", help="refuse other code, lock or versions than recorded")
    chosen = parser.parse(arguments)

    from tunix_rt.records.reproduce import TOLERANCE, reproduce

    result = reproduce(chosen.run, chosen.overrides, chosen.strict)
    if chosen.json:
        out(to_json(asdict(result)))
    else:
        for line in result.environment:
            warn(f"not as recorded: {line}")
        how = "bit for bit" if result.exact else f"within tolerances, since the environments differ ({TOLERANCE})"
        verdict = f"EQUAL {how}: {', '.join(result.compared)}" if result.equal else f"DIFFERENT: {result.difference}"
        out(f"{verdict}\n{result.of} run again in {result.folder}")
    return 0 if result.equal else GateError.exit_code
