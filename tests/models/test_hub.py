"""Models of the hub: from a cache as the hub's client lays it out, and from a server that answers as the hub does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import close_session, constants

from tests.families import CASES, write
from tests.models.hub_server import COMMIT, REVOKED, TOKEN, Hub, serving
from tunix_rt.config.model import HubModel
from tunix_rt.errors import MachineError, ModelError
from tunix_rt.models import hub as hub_client
from tunix_rt.models.folder import read_weights
from tunix_rt.models.sources import content_digest, materialise

UNUSED = Path("unused")
SHARD = "model-00002-of-00003.safetensors"


def pinned(revision: str = COMMIT, name: str = "someone/small") -> HubModel:
    return HubModel(kind="hub", name=name, revision=revision)


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in several files with their index, as transformers writes it."""
    folder = write(tmp_path_factory.mktemp("sharded"), replace(CASES["llama"], save={"max_shard_size": "30KB"}))
    assert (folder / SHARD).is_file(), list(folder.iterdir())
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def _nothing_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a process that has not yet asked what a branch is."""
    monkeypatch.setattr(hub_client, "_commits", {})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The client's cache, empty, with nobody logged in and no network (what HF_HUB_CACHE and HF_HUB_OFFLINE set)."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def laid_out(cache: Path, folder: Path) -> Path:
    """The folder in the client's cache, as the commit that `main` was; returns the snapshot."""
    repository = cache / "models--someone--small"
    snapshot = repository / "snapshots" / COMMIT
    for part in (repository / "refs", repository / "blobs", snapshot):
        part.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.copy(file, repository / "blobs" / f"{number:064x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:064x}")
    return snapshot


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = read_weights(one), read_weights(other)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        np.testing.assert_array_equal(tensor, right[name])


def test_a_model_in_the_cache_needs_no_network(cache: Path, sharded: Path) -> None:
    snapshot = laid_out(cache, sharded)
    for revision in (COMMIT, "main"):
        assert materialise(pinned(revision), UNUSED) == snapshot
    assert_same_weights(snapshot, sharded)


def test_the_variables_of_the_client_are_obeyed_and_nothing_heavy_is_imported(tmp_path: Path, sharded: Path) -> None:
    snapshot = laid_out(tmp_path, sharded)
    code = (
        "import sys; from pathlib import Path\n"
        "from tunix_rt.config.model import HubModel\n"
        "from tunix_rt.models.sources import materialise\n"
        f"folder = materialise(HubModel(kind='hub', name='someone/small', revision='{COMMIT}'), Path('unused'))\n"
        "print(folder, [name for name in ('torch', 'jax', 'transformers') if name in sys.modules])\n"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == f"{snapshot} []"


@pytest.mark.parametrize("name", ["config.json", SHARD])
def test_a_file_that_the_cache_lacks_is_named(name: str, cache: Path, sharded: Path) -> None:
    (laid_out(cache, sharded) / name).unlink()
    with pytest.raises(MachineError) as caught:
        materialise(pinned(), UNUSED)
    assert f"missing {name}; where there is a network: hf download someone/small --revision {COMMIT}" in str(
        caught.value
    )


def test_a_revision_that_the_cache_lacks_is_named_with_those_it_has(cache: Path, sharded: Path) -> None:
    laid_out(cache, sharded)
    with pytest.raises(MachineError) as caught:
        materialise(pinned("f" * 40), UNUSED)
    line = str(caught.value)
    assert "\n" not in line
    assert (
        f"at revision {'f' * 40} is neither in the local cache, which has it at {COMMIT}, main, nor reachable" in line
    )
    assert f"hf download someone/small --revision {'f' * 40}" in line and "model=from_path" in line


def test_a_model_that_the_cache_lacks_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(MachineError, match="neither in the local cache nor reachable") as caught:
        materialise(pinned(), UNUSED)
    assert "\n" not in str(caught.value) and f"hf download someone/small --revision {COMMIT}" in str(caught.value)


@pytest.mark.parametrize("whole", [True, False])
def test_a_repository_with_an_adapter_says_so(whole: bool, hub: Hub) -> None:
    """Prevents: an adapter beside the weights, which plain transformers applies, and nobody here fetches."""
    (hub.folder / "adapter_config.json").write_text("{}")
    if not whole:
        for file in hub.folder.glob("model*"):
            file.unlink()
    message = "holds a whole model" if whole else r"an adapter \(adapter_config\.json\), not a model"
    with pytest.raises(ModelError, match=message):
        materialise(pinned(), hub.folder)


def test_pickled_weights_are_refused(cache: Path, tmp_path: Path, sharded: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(sharded / "config.json", old)
    (old / "pytorch_model.bin").write_bytes(b"\x80\x04")
    laid_out(cache, old)
    with pytest.raises(ModelError, match=r"missing model\.safetensors \(found pytorch_model\.bin: only safetensors"):
        materialise(pinned(), UNUSED)


def test_a_name_that_cannot_be_one(cache: Path) -> None:
    with pytest.raises(ModelError, match="the Hugging Face hub has no model a/b/c") as caught:
        materialise(pinned(name="a/b/c"), UNUSED)
    assert "\n" not in str(caught.value)


def test_the_digest_is_the_commit_whatever_it_is_called_by(cache: Path, sharded: Path) -> None:
    """Prevents: a branch that moved on giving new weights the identity, and the results, of the old ones."""
    snapshot = laid_out(cache, sharded)
    assert content_digest(pinned("main")) == content_digest(pinned()) != content_digest(pinned(name="a/b"))
    before = content_digest(pinned("main"))
    other = "f" * 40
    snapshot.rename(snapshot.with_name(other))
    (cache / "models--someone--small" / "refs" / "main").write_text(other)
    with pytest.raises(MachineError, match=COMMIT):
        content_digest(pinned("main"))  # within one process a branch stays what it was
    hub_client._commits.clear()  # as another process begins
    assert content_digest(pinned("main")) == content_digest(pinned(other)) != before
    assert materialise(pinned("main"), UNUSED).name == other


@pytest.fixture
def hub(cache: Path, tmp_path: Path, sharded: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The sharded model on a server (what HF_ENDPOINT sets), beside code and pickles that nobody may want."""
    folder = shutil.copytree(sharded, tmp_path / "served")
    for name in ("modeling_small.py", "pytorch_model.bin", "README.md"):
        (folder / name).write_text("import os")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(folder) as server:
        place = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", place)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", place + "/{repo_id}/resolve/{revision}/{filename}"
        )
        close_session()
        yield server
        close_session()


def test_an_open_model_is_fetched_once_without_the_login(
    hub: Hub, sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = materialise(pinned(), UNUSED)
    assert {file.name for file in folder.iterdir()} == {file.name for file in sharded.iterdir()}, "no code, no pickle"
    assert_same_weights(folder, sharded)
    assert hub.asked and {login for _, login in hub.asked} == {None}
    hub.asked.clear()
    assert materialise(pinned(), UNUSED) == folder
    assert hub.asked == [], "of a pinned commit nothing is asked again"

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (folder / SHARD).unlink()
    with pytest.raises(MachineError, match=rf"not whole in the local cache .*: missing {SHARD}\) and not"):
        materialise(pinned(), UNUSED)


def test_a_gated_model_is_fetched_with_the_login_that_is_stored(
    hub: Hub, sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = True
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert_same_weights(materialise(pinned(), UNUSED), sharded)
    assert hub.asked[0][1] is None and (hub.asked[-1][1] or "").endswith(TOKEN)


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        (None, "someone/small is gated, and no login is stored"),
        ("hf_of_a_stranger", "someone/small is gated, and the stored login may not read it"),
        (REVOKED, "the hub refuses the stored login for someone/small"),
    ],
)
def test_a_gated_model_without_access_says_how_to_get_it(
    login: str | None, expected: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = True
    if login is not None:
        monkeypatch.setenv("HF_TOKEN", login)
    with pytest.raises(MachineError) as caught:
        materialise(pinned(), UNUSED)
    line = str(caught.value)
    assert f"{expected}: accept its licence at {constants.ENDPOINT}/someone/small" in line
    assert "`hf auth login`" in line and "HF_TOKEN" in line
    assert str(login) not in line and "\n" not in line


def test_what_the_hub_does_not_have_is_named(hub: Hub) -> None:
    with pytest.raises(ModelError, match="someone/small has no revision nightly on the Hugging Face hub"):
        materialise(pinned("nightly"), UNUSED)
    with pytest.raises(ModelError, match="has no model someone/else that everybody may read"):
        materialise(pinned(name="someone/else"), UNUSED)
    for file in hub.folder.glob("model*"):
        file.unlink()
    with pytest.raises(
        ModelError, match=r"missing model\.safetensors, nor is it in someone/small .* pytorch_model\.bin"
    ):
        materialise(pinned(), UNUSED)
