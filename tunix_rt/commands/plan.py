"""Say what an experiment would take, before it is run: parameters, memory, tokens, steps and time.

Memory follows from shapes; a second of training steps on a model of zeros shows what does not. Where the experiment
does not fit, the settings that would make it fit are named, and the exit code is 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.commands import Parser
from tunix_rt.errors import InputError
from tunix_rt.files import to_json
from tunix_rt.terminal import out


def main(arguments: Sequence[str]) -> int:
    """Print the plan of +experiment=NAME and KEY=VALUE."""
    parser = Parser("plan", __doc__, "overrides", "--json")
    parser.add_argument("--memory", metavar="SIZE", help="as if the device had so much: 8GiB, 500MiB")
    parser.add_argument("--no-measure", action="store_true", help="leave out the measured second, and with it the time")
    chosen = parser.parse(arguments)

    from tunix_rt.config.load import check, compose

    limit = None if chosen.memory is None else _bytes(chosen.memory)
    config = check(compose(chosen.overrides))

    from tunix_rt.plan.make import make
    from tunix_rt.plan.show import show

    plan = make(config, chosen.overrides, limit, measures=not chosen.no_measure)
    if chosen.json:
        out(to_json(plan.to_json()))
    else:
        show(plan)
    return 0 if plan.fits else 3


def _bytes(size: str) -> int:
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        return TypeAdapter(ByteSize).validate_python(size)
    except ValidationError as error:
        raise InputError(f"--memory {size!r}: expected a size such as 8GiB or 500MiB") from error
