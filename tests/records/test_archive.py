"""`export` and `verify`: what was exported is believed, and every way of changing it is found."""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.records.conftest import Types
from tunix_rt.checked import seal
from tunix_rt.errors import DataError, GateError
from tunix_rt.files import read_json, write_json
from tunix_rt.runs.archive import CHECKSUMS, unpack
from tunix_rt.runs.folder import RunFolder

FILES = (
    "config.yaml environment.json stages.json status.json data.json metrics.jsonl timings.jsonl predictions.jsonl "
    "baseline_predictions.jsonl baseline_items.jsonl items.jsonl metrics.json baseline_metrics.json report.md "
    "report.html figures/loss.png model/model.safetensors model/config.json model/tokenizer.json data/manifest.json "
    "data/traces/train.jsonl data/traces/validation.jsonl data/traces/test.jsonl checksums.json"
).split()


@pytest.mark.slow
def test_an_exported_run_is_verified_elsewhere(finished: RunFolder, types: Types) -> None:
    done = types("export", "last", "all.zip", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["model"] is True
    assert set(FILES) <= set(zipfile.ZipFile("all.zip").namelist())
    types("export", "last", "again.zip")
    assert Path("all.zip").read_bytes() == Path("again.zip").read_bytes()
    Path("runs").rename("gone")
    Path("data").rename("gone_too")
    verified = types("verify", "all.zip")
    assert verified.code == 0, verified.out
    assert "predictions: 4, one for each trace of the test split" in verified.out
    assert "training: 6 steps, and the model they gave" in verified.out
    assert verified.out.endswith("VERIFIED all.zip\n")


@pytest.mark.slow
def test_without_the_model_and_from_a_run_that_refers_to_another(finished: RunFolder, types: Types) -> None:
    """Only the evaluation is its own; the archive has the sibling's training and predictions nevertheless."""
    from tests.records.conftest import WORDS

    assert types(*WORDS, "evaluation=number").code == 0
    (other,) = (path for path in finished.path.parent.iterdir() if path.is_dir() and path.name != finished.path.name)
    assert types("export", f"mine/{other.name}", "--no-model").code == 0
    file = f"runs/mine-{other.name}.zip"
    names = zipfile.ZipFile(file).namelist()
    assert {"predictions.jsonl", "metrics.jsonl"} <= set(names)
    assert not any(name.startswith("model/") for name in names)
    done = types("verify", file, "--json")
    assert json.loads(done.out)["verified"], done.out
    assert types("verify", other.name).code == 0


def changed(name: str, change: Callable[[bytes], bytes | None], relisted: bool = True) -> str:
    """A copy of all.zip with one file changed (None: left out), and with checksums to match where `relisted`."""
    with zipfile.ZipFile("all.zip") as source:
        content: dict[str, bytes | None] = {entry: source.read(entry) for entry in source.namelist()}
    content[name] = change(content.get(name) or b"")
    if relisted and content[name] is not None:
        sums = json.loads(content[CHECKSUMS] or b"")
        sums["files"][name] = {"sha256": hashlib.sha256(content[name] or b"").hexdigest(), "bytes": 1}
        content[CHECKSUMS] = json.dumps(sums).encode()
    with zipfile.ZipFile("changed.zip", "w", zipfile.ZIP_DEFLATED) as target:
        for entry, data in content.items():
            if data is not None:
                target.writestr(entry, data)
    return "changed.zip"


def swapped(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert old.encode() in data, old
        return data.replace(old.encode(), new.encode(), 1)

    return change


@pytest.mark.slow
def test_every_change_is_found(finished: RunFolder, types: Types) -> None:
    types("export", "last", "all.zip")
    first = json.loads(finished.predictions.read_text().splitlines()[0])
    k = read_json(finished.metrics)["accuracy"]["k"]

    def wrong(file: str) -> str:
        done = types("verify", file)
        assert done.code == 5, done.out
        assert done.out.startswith("WRONG ")
        return done.out

    plain = wrong(changed("report.md", lambda data: data + b" ", relisted=False))
    assert "report.md: not the bytes that were exported" in plain
    assert "items.jsonl: missing" in wrong(changed("items.jsonl", lambda data: None))
    assert "extra.txt: not in checksums.json" in wrong(changed("extra.txt", lambda data: b"x", relisted=False))
    traces = wrong(changed("data/traces/test.jsonl", swapped('"final_answer": "', '"final_answer": "1')))
    assert "traces/test.jsonl: not the split of the manifest" in traces
    dropped = changed("predictions.jsonl", lambda data: data.split(b"\n", 1)[1])
    assert f"predictions.jsonl: no prediction of id {first['id']} sample 0" in wrong(dropped)
    better = changed("metrics.json", swapped(f'"k": {k},', f'"k": {k + 1},'))
    assert f"metrics.json accuracy.k: {k + 1} recorded, {k} computed again" in wrong(better)
    verdict = changed("items.jsonl", swapped('"correct": false', '"correct": true'))
    assert "items.jsonl id " in wrong(verdict)
    assert "the model" not in wrong(changed("config.yaml", swapped("training:\n  seed: 0", "training:\n  seed: 1")))
    assert "model: not the one that was trained" in wrong(changed("model/config.json", lambda data: data + b"\n"))
    whole = Path("all.zip").read_bytes()
    Path("torn.zip").write_bytes(whole[: len(whole) // 2])
    assert "not a whole zip file" in wrong("torn.zip")
    assert types("verify", "nowhere.zip").code == 2


@pytest.mark.slow
def test_what_a_model_learned_from_is_in_the_archive_and_checked(finished: RunFolder, types: Types) -> None:
    """Prevents: answers that were edited, or left out, being taken for those that the model learned from."""
    name = "rollouts/step_00000001.jsonl"
    beside = "rollouts/step_00000001.sha256"  # which training goes on by; the archive has its own sums
    finished.rollouts.mkdir()
    (finished.path / name).write_text('{"id": "a"}\n')
    (finished.path / beside).write_text("0\n")
    record = finished.stages()["train"]
    finished.record_stage("train", record | {"outputs": record["outputs"] | seal(finished.path, [name, beside])})
    assert types("export", "last", "all.zip").code == 0
    assert "rollouts: 1 file, as the training wrote them" in types("verify", "all.zip").out
    assert "rollouts: 1 file, as the training wrote them" in types("verify", "last").out
    edited = types("verify", changed(name, swapped('"a"', '"b"'))).out
    assert edited.startswith(f"WRONG {name}: damaged (its sha256")
    added = types("verify", changed("rollouts/step_00000002.jsonl", lambda data: b"{}")).out
    assert added.startswith("WRONG rollouts/step_00000002.jsonl: not written by the training")
    with zipfile.ZipFile("all.zip") as archive:
        sums = json.loads(archive.read(CHECKSUMS))
    del sums["files"][name]
    left_out = changed(CHECKSUMS, lambda data: json.dumps(sums).encode(), relisted=False)
    Path(left_out).rename("all.zip")
    assert types("verify", changed(name, lambda data: None)).out.startswith(f"WRONG {name}: missing")


@pytest.mark.slow
def test_a_changed_run_folder_is_found(finished: RunFolder, types: Types) -> None:
    assert types("verify", "last").out.endswith("VERIFIED last\n")
    write_json(finished.metrics, read_json(finished.metrics) | {"missing": 3})
    done = types("verify", "last")
    assert done.code == 5 and done.out.startswith(f"WRONG {finished.metrics}: damaged (")
    record = finished.stages()["evaluate"]
    resealed = seal(finished.path, ["metrics.json"])
    finished.record_stage("evaluate", record | {"outputs": record["outputs"] | resealed})
    done = types("verify", "last")
    assert (done.code, done.out) == (5, "WRONG metrics.json missing: 3 recorded, 0 computed again\n")


def test_a_zip_file_that_leads_elsewhere_or_is_a_bomb_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("model/config.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    cases: list[tuple[str | zipfile.ZipInfo, bytes, str]] = [
        ("../evil.txt", b"x", "outside"),
        ("a/../../evil.txt", b"x", "outside"),
        ("/tmp/evil.txt", b"x", "outside"),
        ("C:\\evil.txt", b"x", "outside"),
        (link, b"/etc/passwd", "no plain file"),
        ("zeros.txt", bytes(50_000_000), "as bombs do"),
        ("config.yaml/x", b"x", "below one that is a file"),
    ]
    for name, content, expected in cases:
        with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.yaml", "a: 1")
            archive.writestr(name, content)
            archive.writestr(CHECKSUMS, '{"version": 1, "files": {}}')
        with pytest.raises(GateError, match=expected):
            unpack(tmp_path / "bad.zip", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]
    (tmp_path / "bad.zip").write_text("text")
    with pytest.raises(GateError, match="not a whole zip file"):
        unpack(tmp_path / "bad.zip", tmp_path / "out")
    with pytest.raises(DataError, match="no such file"):
        unpack(tmp_path / "none.zip", tmp_path / "out")
