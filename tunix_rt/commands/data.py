"""Show which bytes a run was made of, and check that they, the manifest and DVC still agree."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Print the table of data versions; exit code 2 if a file has changed."""
    parser = argparse.ArgumentParser(prog="tunix_rt data", description=__doc__)
    parser.add_argument("run", help="a name, a prefix or `last`")
    parser.add_argument("--root", default="runs", help="folder of the runs (run.root)")
    parser.add_argument("--json", action="store_true", help="as JSON")
    chosen = parser.parse_args(list(arguments))

    from tunix_rt.errors import DataError
    from tunix_rt.files import to_json
    from tunix_rt.records.data_versions import mismatches, versions
    from tunix_rt.runs.folder import find_run
    from tunix_rt.terminal import out, table

    run = find_run(Path(chosen.root), chosen.run)
    rows = versions(run)
    wrong = list(mismatches(run, rows))
    if chosen.json:
        out(to_json({"versions": rows, "mismatches": wrong}))
    else:
        columns = ("file", "split", "sha256 (manifest)", "md5 (DVC)")
        shown = [(row["file"], row["split"], f"{row['sha256'][:16]}…", row["dvc_md5"] or "") for row in rows]
        table(run.name, columns, shown, whole=range(len(columns)))
    if wrong:
        raise DataError("\n  ".join([f"{run.name}: its data is not what it was:", *wrong]))
    if not chosen.json:
        out("the same bytes everywhere")
    return 0
