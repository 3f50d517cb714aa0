"""Say what an experiment would take, before it is run: parameters, memory, tokens, steps and time.

Nothing is loaded: memory follows from shapes. Where the experiment does not fit, the settings that would make it fit
are named, and the exit code is 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Print the plan of +experiment=NAME and KEY=VALUE."""
    parser = argparse.ArgumentParser(prog="tunix_rt plan", description=__doc__)
    parser.add_argument("--memory", metavar="SIZE", help="as if the device had so much: 8GiB, 500MiB")
    parser.add_argument("--no-measure", action="store_true", help="leave out the measured second, and with it the time")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("overrides", nargs="*", help="+experiment=NAME and KEY=VALUE, as for a run")
    chosen = parser.parse_intermixed_args(list(arguments))

    from tunix_rt.config.load import check, compose
    from tunix_rt.plan.size import parse

    limit = None if chosen.memory is None else parse(chosen.memory)
    config = check(compose(chosen.overrides))

    from tunix_rt.files import to_json
    from tunix_rt.plan.make import make
    from tunix_rt.plan.show import show
    from tunix_rt.terminal import out

    plan = make(config, chosen.overrides, limit, measuring=not chosen.no_measure)
    if chosen.json:
        out(to_json(plan.to_json()))
    else:
        show(plan)
    return 0 if plan.fits else 3
