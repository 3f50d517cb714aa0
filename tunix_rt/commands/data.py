"""Show which bytes a run was made of, and check that they, the manifest and DVC still agree."""

from __future__ import annotations

from collections.abc import Sequence

from tunix_rt.commands import Parser
from tunix_rt.errors import DataError
from tunix_rt.files import to_json
from tunix_rt.terminal import out, table


def main(arguments: Sequence[str]) -> int:
    """Print the table of data versions; exit code 2 if a file has changed."""
    chosen = Parser("data", __doc__, "run", "--json", "--root").parse(arguments)

    from tunix_rt.records.data_versions import mismatches, versions

    rows = versions(chosen.run)
    wrong = list(mismatches(chosen.run, rows))
    if chosen.json:
        out(to_json({"versions": rows, "mismatches": wrong}))
    else:
        columns = ("file", "split", "sha256 (manifest)", "md5 (DVC)")
        shown = [(row["file"], row["split"], f"{row['sha256'][:16]}…", row["dvc_md5"] or "") for row in rows]
        table(chosen.run.name, columns, shown, whole=range(len(columns)))
    if wrong:
        raise DataError("\n  ".join([f"{chosen.run.name}: its data is not what it was:", *wrong]))
    if not chosen.json:
        out("the same bytes everywhere")
    return 0
