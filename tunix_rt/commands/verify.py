"""Check an exported zip file, or a run: hashes, splits, predictions scored again. VERIFIED, or what is wrong.

Exit code 0: verified; 5: something is wrong; 2: no such file, or not safe to open.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunix_rt.commands import Parser
from tunix_rt.errors import GateError
from tunix_rt.files import to_json
from tunix_rt.terminal import out


def main(arguments: Sequence[str]) -> int:
    """Verify an export or a run."""
    parser = Parser("verify", __doc__, "--json", "--root")
    parser.add_argument("what", help="a file made by `export`, or a run: a name, a prefix or `last`")
    chosen = parser.parse(arguments)

    from tunix_rt.records.verify import verify
    from tunix_rt.runs.folder import find_run

    file = Path(chosen.what)
    is_file = file.suffix == ".zip" or file.is_file()
    problem, checked = None, []
    try:
        checked = verify(file if is_file else find_run(chosen.root, chosen.what))
    except GateError as error:
        problem = str(error)
    if chosen.json:
        out(to_json({"verified": problem is None, "checked": checked, "problem": problem}))
    elif problem is None:
        out("\n".join([*checked, f"VERIFIED {chosen.what}"]))
    else:
        out(f"WRONG {problem}")
    return 0 if problem is None else GateError.exit_code
