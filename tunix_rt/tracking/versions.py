"""The same bytes under three names: the manifest's sha256, DVC's md5, the digest of the MLflow dataset.

A table in `data.json` names all three for each file of the data; `mismatches` proves, file by file, that each of
the three systems still speaks of these bytes.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from tunix_rt.config.choices import SPLITS
from tunix_rt.files import JsonObject, read_json, sha256_file
from tunix_rt.runs.folder import RunFolder
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.tracking.mlflow import DIGEST, stored_datasets
from tunix_rt.tracking.sender import STATE


def version_table(prepared: PreparedData) -> list[JsonObject]:
    """A row for each file: `file` (relative to the prepared folder, a source as declared), `split`, the three names.

    `mlflow` is null for a source file: the dataset in MLflow is the prepared split.
    """
    manifest = prepared.manifest
    rows = [
        {
            "file": str(prepared.traces_file(split).relative_to(prepared.folder)),
            "split": split,
            "sha256": manifest["splits"][split]["sha256"],
            "dvc_md5": md5_file(prepared.traces_file(split)),
            "mlflow": manifest["splits"][split]["sha256"][:DIGEST],
        }
        for split in SPLITS
    ]
    return rows + [
        {
            "file": file["path"],
            "split": f"source of {file['split']}",
            "sha256": file["sha256"],
            "dvc_md5": md5_file(Path(file["path"])) if Path(file["path"]).is_file() else None,
            "mlflow": None,
        }
        for file in manifest["files"]
    ]


def md5_file(path: Path) -> str:
    """Hex MD5 of a file's bytes: how DVC 3 names content (https://dvc.org/doc/user-guide/project-structure)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def mismatches(run: RunFolder, uri: str | None) -> Iterator[str]:
    """What does not agree, a line each: bytes, manifest, `dvc.lock` (where DVC knows the file), MLflow (at `uri`)."""
    record = read_json(run.data)
    folder = run.data_folder
    manifest = PreparedData(folder).manifest if PreparedData(folder).is_whole else {"splits": {}}
    stored = _in_store(run, uri)
    for row in record["versions"]:
        prepared = row["mlflow"] is not None
        file = folder / row["file"] if prepared else Path(row["file"])
        if not file.is_file():
            yield f"{file}: not there any more"
            continue
        yield from _differing(file, row)
        if prepared:
            split = row["split"]
            if manifest["splits"].get(split, {}).get("sha256") != row["sha256"]:
                yield f"{file}: its manifest names other bytes for {split}"
            name = f"{record['name']}/{split}"
            if stored is not None and record["splits"][split]["count"] and stored.get(name) != row["mlflow"]:
                yield f"{file}: the MLflow dataset {name} has digest {stored.get(name)}, expected {row['mlflow']}"


def _differing(file: Path, row: JsonObject) -> Iterator[str]:
    if sha256_file(file) != row["sha256"]:
        yield f"{file}: changed since the run used it (sha256 of its bytes is not {row['sha256'][:12]}…)"
    if md5_file(file) != row["dvc_md5"]:
        yield f"{file}: its md5 is not {row['dvc_md5']}, which DVC would know it by"
    known = _known_to_dvc(file)
    if known is not None and known != row["dvc_md5"]:
        yield f"{file}: DVC knows it as {known}, the run used {row['dvc_md5']}"


def _known_to_dvc(file: Path) -> str | None:
    """The md5 by which `dvc.lock` (or a `.dvc` file) of the working directory knows a file; None where it does not."""
    if not Path(".dvc").is_dir() or importlib.util.find_spec("dvc") is None:
        return None
    from dvc.api import DVCFileSystem

    try:
        found = DVCFileSystem(".").info(file.as_posix())
    except FileNotFoundError:
        return None
    md5 = (found.get("dvc_info") or {}).get("md5")
    return None if md5 is None else str(md5)


def _in_store(run: RunFolder, uri: str | None) -> dict[str, str] | None:
    state = run.path / STATE
    if uri is None or not state.exists():
        return None
    run_id = read_json(state).get("run_id")
    return stored_datasets(uri, run_id) if run_id else None
