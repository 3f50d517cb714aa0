"""Check an exported zip file, or a run: hashes, splits, predictions scored again. VERIFIED, or what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Verify an export. Exit code 0: verified; 5: something is wrong; 2: no such file, or not safe to open."""
    parser = argparse.ArgumentParser(prog="tunix_rt verify", description=__doc__, epilog=main.__doc__)
    parser.add_argument("what", help="a file made by `export`, or a run: a name, a prefix or `last`")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root)")
    chosen = parser.parse_args(list(arguments))

    from tunix_rt.errors import GateError
    from tunix_rt.files import to_json
    from tunix_rt.records.verify import verify
    from tunix_rt.runs.folder import find_run
    from tunix_rt.terminal import out

    file = Path(chosen.what)
    is_file = file.suffix == ".zip" or file.is_file()
    problem, checked = None, []
    try:
        checked = verify(file if is_file else find_run(Path(chosen.root), chosen.what))
    except GateError as error:
        problem = str(error)
    if chosen.json:
        out(to_json({"verified": problem is None, "checked": checked, "problem": problem}))
    elif problem is None:
        out("\n".join([*checked, f"VERIFIED {chosen.what}"]))
    else:
        out(f"WRONG {problem}")
    return 0 if problem is None else GateError.exit_code
