"""A model on the Hugging Face hub → its folder in the hub client's own cache: safetensors only, no code, no pickles.

The stored login is sent to the hub only if it answers that the repository is gated.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from tunix_rt.config.model import HubModel
from tunix_rt.errors import MachineError, ModelError
from tunix_rt.models.folder import (
    ADAPTER_CONFIG,
    CONFIG,
    GENERATION,
    INDEX,
    TEMPLATES,
    TOKENIZER_FILES,
    refuse_adapter,
    weight_files,
)

WANTED = ["model*.safetensors", INDEX, CONFIG, GENERATION, *TOKENIZER_FILES, f"{TEMPLATES}/*.jinja", ADAPTER_CONFIG]
OTHER_WEIGHTS = (".bin", ".gguf", ".h5", ".msgpack", ".pt", ".pth")
UNAUTHORISED = 401
COMMIT = re.compile("[0-9a-f]{40}")


_commits: dict[HubModel, str] = {}
"""The commit that a branch or tag pointed to when this process first looked; it stays fixed for the process."""


def commit_of(source: HubModel) -> str:
    """The commit that the revision names; for a branch or tag this fetches the weights. Raises as `snapshot`."""
    return source.revision if COMMIT.fullmatch(source.revision) else snapshot(source).name


def snapshot(source: HubModel) -> Path:
    """The model's folder; files missing from the cache are fetched first. A cached pinned commit needs no request.

    A branch stays at the commit of the first call. Raises ModelError if there is no such model or revision, or it
    has no readable files; MachineError if access is missing, or files are neither in the cache nor reachable: the
    message says how to get them.
    """
    folder = _fetched(replace(source, revision=_commits.get(source, source.revision)))
    _commits[source] = folder.name
    return folder


def _fetched(source: HubModel) -> Path:
    from huggingface_hub import get_token
    from huggingface_hub.errors import GatedRepoError

    with suppress(GatedRepoError):
        return _download(source, token=False)
    problem = "no login is stored"
    if (token := get_token()) is not None:
        with suppress(GatedRepoError):
            return _download(source, token)
        problem = "the stored login may not read it"
    raise MachineError(f"{source.name} is gated, and {problem}: {_access(source)}")


def _access(source: HubModel) -> str:
    from huggingface_hub.constants import ENDPOINT

    return f"accept its licence at {ENDPOINT}/{source.name}, then `hf auth login`, or set HF_TOKEN"


def _download(source: HubModel, token: str | bool) -> Path:
    """The folder in the cache with the `WANTED` files of the repository. Raises GatedRepoError, else as `snapshot`."""
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP library, whichever it uses

    name, revision = source.name, source.revision
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=WANTED, token=token))
    except errors.GatedRepoError:
        raise
    except errors.RevisionNotFoundError:
        raise ModelError(f"{name} has no revision {revision} on the Hugging Face hub (model.source.revision)") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(
            f"the Hugging Face hub has no model {name} that everybody may read ({why}); "
            f"a private one of your own: {_fetching(source)}"
        ) from None
    except (HTTPError, errors.LocalEntryNotFoundError, ConnectionError) as error:
        if isinstance(error, errors.HfHubHTTPError) and error.response.status_code == UNAUTHORISED:
            raise MachineError(f"the hub refuses the stored login for {name}: {_access(source)}") from None
        raise MachineError(_unreachable(source, error)) from None
    lack = _lack(folder)  # the client accepts a partial folder if it cannot reach the hub
    if lack is not None:
        _refuse(source, folder, token, lack)
    return folder


def _refuse(source: HubModel, folder: Path, token: str | bool, lack: str) -> NoReturn:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    if any(folder.glob("*.bin")) or (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(lack)
    try:
        listed = HfApi(token=token).list_repo_files(source.name, revision=source.revision)
    except (HTTPError, ConnectionError):
        raise MachineError(f"{lack}; {_fetching(source)}") from None
    others = ", ".join(sorted(name for name in listed if name.endswith(OTHER_WEIGHTS)))
    raise ModelError(
        f"{lack}, nor is it in {source.name} at revision {source.revision}, which has {others or 'no weights'}: "
        "only safetensors is read; convert it first, or name another revision"
    )


def _lack(folder: Path) -> str | None:
    """What keeps the folder from being a model, as a required file that is missing; None if nothing does."""
    try:
        refuse_adapter(folder)
        if not (folder / CONFIG).is_file():
            return f"{folder}: missing {CONFIG}"
        weight_files(folder)
    except ModelError as error:
        return str(error)
    return None


def _unreachable(source: HubModel, error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = Path(HF_HUB_CACHE).expanduser() / f"models--{source.name.replace('/', '--')}"
    ref, model = repository / "refs" / source.revision, f"model {source.name} at revision {source.revision}"
    folder = repository / "snapshots" / (ref.read_text("utf-8") if ref.is_file() else source.revision)
    if folder.is_dir():
        lack = _lack(folder) or f"{folder} has only {', '.join(sorted(path.name for path in folder.iterdir()))}"
        what = f"{model} is not whole in the local cache ({lack}) and not"
    else:
        known = ", ".join(sorted(path.name for kind in ("refs", "snapshots") for path in repository.glob(f"{kind}/*")))
        cached = f", which has it at {known}," if known else ""
        what = f"{model} is neither in the local cache{cached} nor"
    return f"{what} reachable ({type(error).__name__}); {_fetching(source)}"


def _fetching(source: HubModel) -> str:
    return (
        f"where there is a network: hf download {source.name} --revision {source.revision}, or copy the model's "
        "folder here and use model=from_path model.source.path=FOLDER"
    )
