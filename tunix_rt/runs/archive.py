"""Packs a run into one zip file, and unpacks it: every file has its sha256, unlisted files are not trusted.

The same run gives the same bytes: entries are sorted and have no timestamps.
"""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from tunix_rt.errors import DataError, GateError
from tunix_rt.files import JsonObject, atomic_writer, copy_stream, parse_json, sha256_bytes, to_json
from tunix_rt.runs.diff import result_files
from tunix_rt.runs.folder import RunFolder

CHECKSUMS = "checksums.json"
MODEL = "model/"
DATA = "data/"
"""Where the manifest and the traces of the splits are in the archive."""
RECORDS = "config.yaml environment.json status.json data.json reproduction.json report.md report.html".split()
VERSION = 1
MAX_ENTRIES = 10_000
MAX_BYTES = 200 * 2**30
MAX_RATIO = 400
"""Maximum ratio of an entry's size, beyond a mebibyte, to its compressed size: for text it is at most about 50."""
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    file: str
    files: int
    bytes: int
    model: bool


def export(run: RunFolder, prepared: Path, target: Path, with_model: bool) -> Exported:
    """Write the archive of a finished run. `prepared`: its folder of prepared data.

    Results of a sibling (training, predictions) are included, so that the archive is self-contained. Raises DataError
    if the prepared data is gone.
    """
    if not (prepared / "manifest.json").is_file():
        raise DataError(f"{prepared}: the run's prepared data is gone; its command again prepares it")
    files = _files(run, prepared, with_model)
    stages = to_json(_standing_alone(run)).encode()
    sums: JsonObject = {"stages.json": {"sha256": sha256_bytes(stages), "bytes": len(stages)}}
    with atomic_writer(target) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        archive.writestr(_entry("stages.json"), stages)
        for name, file in sorted(files.items()):
            sums[name] = _add(archive, name, file)
        content = {"version": VERSION, "run": run.name, "model": with_model, "files": dict(sorted(sums.items()))}
        archive.writestr(_entry(CHECKSUMS), to_json(content).encode())
    return Exported(str(target), len(sums), target.stat().st_size, with_model)


def _files(run: RunFolder, prepared: Path, with_model: bool) -> dict[str, Path]:
    """Name in the archive → file."""
    found = {name: run.path / name for name in RECORDS} | result_files(run)
    found |= {name: run.metrics_log.with_name(name) for name in ("timings.jsonl", "sessions.jsonl", "fingerprint.json")}
    found[run.baseline_items.name] = run.baseline_items
    found |= {f"figures/{file.name}": file for file in run.path.glob("figures/*") if file.is_file()}
    found[f"{DATA}manifest.json"] = prepared / "manifest.json"
    found |= {f"{DATA}traces/{file.name}": file for file in (prepared / "traces").glob("*.jsonl")}
    keep = {name: file for name, file in found.items() if file.is_file()}
    return keep if with_model else {name: file for name, file in keep.items() if not name.startswith(MODEL)}


def _standing_alone(run: RunFolder) -> dict[str, JsonObject]:
    """`stages.json` of a folder that contains everything itself; it still says which run did a stage."""
    stages = run.stages()
    for record in stages.values():
        if "folder" in record:
            record["done_by"] = Path(record.pop("folder")).name
    return stages


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _add(archive: zipfile.ZipFile, name: str, file: Path) -> JsonObject:
    entry = _entry(name)
    entry.file_size = file.stat().st_size
    with file.open("rb") as source, archive.open(entry, "w") as sink:
        sha256 = copy_stream(source, sink)
    return {"sha256": sha256, "bytes": entry.file_size}


def unpack(file: Path, folder: Path) -> JsonObject:
    """Check every entry against `checksums.json` and write it to `folder`, except the model's weights.

    Returns `checksums.json`. Raises DataError: no such file; GateError: the zip file is incomplete or unsafe to open,
    or a file in it is missing, not listed, or changed.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _safe(file, archive)
            listed = _listed(file, archive, entries)
            records = listed["files"]
            for name in sorted(records.keys() ^ (entries.keys() - {CHECKSUMS})):
                problem = "missing" if name in records else f"not in {CHECKSUMS}: it was added later"
                raise GateError(f"{file}: {name}: {problem}")
            for name, record in sorted(records.items()):
                with archive.open(entries[name]) as source:  # no more than its declared size, which `_safe` checked
                    if _write(source, folder / name) != record["sha256"]:
                        raise GateError(f"{file}: {name}: not the bytes that were exported (sha256 differs)")
            return listed
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise GateError(f"{file}: not a whole zip file ({error})") from None


def _safe(file: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The entries by name; refuses any with an unsafe path, links and zip bombs."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_BYTES:
        raise GateError(f"{file}: refused: more than {MAX_ENTRIES} entries or {MAX_BYTES:,} bytes")
    names = Counter(entry.filename for entry in entries)
    for entry in entries:
        if problem := _problem(entry, names):
            raise GateError(f"{file}: refused: the entry {entry.filename!r} {problem}")
    return {entry.filename: entry for entry in entries}


def _problem(entry: zipfile.ZipInfo, names: Mapping[str, int]) -> str | None:
    name, path = entry.orig_filename, PurePosixPath(entry.orig_filename)
    if path.is_absolute() or ".." in path.parts or any(character in name for character in "\\:\0"):
        return "would be written outside of the folder"
    if name != str(path) or stat.S_ISLNK(entry.external_attr >> 16):
        return "is no plain file"
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is encrypted or packed in a way that `export` does not use"
    if entry.file_size > 2**20 + MAX_RATIO * entry.compress_size:
        return f"unpacks to {entry.file_size:,} bytes from {entry.compress_size:,}, as bombs do"
    if names[entry.filename] > 1:
        return "is there twice"
    return "is below one that is a file" if any(str(parent) in names for parent in path.parents) else None


def _listed(file: Path, archive: zipfile.ZipFile, entries: dict[str, zipfile.ZipInfo]) -> JsonObject:
    if CHECKSUMS not in entries:
        raise GateError(f"{file}: no {CHECKSUMS} in it, so it was not made by `export`")
    try:
        listed = parse_json(archive.read(CHECKSUMS), CHECKSUMS)
        version = listed["version"]
        names = {name: str(record["sha256"]) for name, record in listed["files"].items()}
    except (DataError, KeyError, TypeError, AttributeError) as error:
        raise GateError(f"{file}: {CHECKSUMS} is damaged ({type(error).__name__}: {error})") from None
    if version != VERSION or not names:
        raise GateError(f"{file}: {CHECKSUMS} is not of version {VERSION}, which this version reads")
    return dict(listed)


def _write(source: IO[bytes], target: Path) -> str:
    """Writes an entry, unless it holds weights; returns its sha256."""
    if target.suffix == ".safetensors":
        return copy_stream(source, None)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as sink:
        return copy_stream(source, sink)
