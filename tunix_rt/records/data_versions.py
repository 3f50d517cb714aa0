"""The data files of a run: which bytes they had, and whether they still have them.

The manifest identifies a file by its sha256, whose beginning a store shows; DVC by its md5 (`dvc.lock`, `.dvc`
files).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from tunix_rt.files import BLOCK, JsonObject, read_json
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.prepared import PreparedData


def versions(run: RunFolder) -> list[JsonObject]:
    """A row per file: `file` (its path), `split`, `sha256` at the time of the run."""
    record, prepared = read_json(run.data), PreparedData(run.data_folder)
    used = [(prepared.traces_file(split), split, facts["sha256"]) for split, facts in record["splits"].items()]
    used += [(file["path"], f"source of {file['split']}", file["sha256"]) for file in record["files"]]
    return [{"file": str(file), "split": split, "sha256": sha256} for file, split, sha256 in used]


def mismatches(run: RunFolder, rows: list[JsonObject]) -> Iterator[str]:
    """Disagreements with the rows, one line each: the bytes, the manifest, DVC. Adds `dvc_md5` to each row."""
    prepared = PreparedData(run.data_folder)
    splits = prepared.manifest["splits"] if prepared.is_whole else {}
    for row in rows:
        file, row["dvc_md5"] = Path(row["file"]), None
        if not file.is_file():
            yield f"{file}: not there any more"
            continue
        sha256, row["dvc_md5"] = _digests(file)
        if sha256 != row["sha256"]:
            yield f"{file}: changed since the run used it (sha256 of its bytes is not {row['sha256'][:12]}…)"
        if (known := _known_to_dvc(file)) not in (None, row["dvc_md5"]):
            yield f"{file}: DVC knows it as {known}, its md5 is {row['dvc_md5']}"
        if row["split"] in splits and splits[row["split"]]["sha256"] != row["sha256"]:
            yield f"{file}: its manifest names other bytes for {row['split']}"


def _digests(file: Path) -> tuple[str, str]:
    """Hex sha256 and md5 of a file's bytes, read once."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            sha256.update(block)
            md5.update(block)
    return sha256.hexdigest(), md5.hexdigest()


def _known_to_dvc(file: Path) -> str | None:
    """The md5 of a file in `dvc.lock` (or a `.dvc` file) of the working directory; None if it is not there."""
    if not Path(".dvc").is_dir() or importlib.util.find_spec("dvc") is None:
        return None
    from dvc.api import DVCFileSystem

    try:
        found = DVCFileSystem(".").info(file.as_posix())
    except FileNotFoundError:
        return None
    md5 = (found.get("dvc_info") or {}).get("md5")
    return None if md5 is None else str(md5)
