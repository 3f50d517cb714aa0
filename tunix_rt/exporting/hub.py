"""A run's model in a repository of the Hugging Face hub: the files of its folder, and the card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.errors import InputError, MachineError
from tunix_rt.exporting.card import card
from tunix_rt.exporting.run import TO_EXPORT
from tunix_rt.inference.trained import trained_model, whole_model
from tunix_rt.models.adapter_folder import read_base
from tunix_rt.models.content import model_files
from tunix_rt.models.folder import is_adapter
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.secrets import mask

LOGIN = "`hf auth login`, or set HF_TOKEN to a token that may write"
DENIED = (401, 403)
CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What is on the hub now."""

    url: str
    commit: str
    files: int
    private: bool


def export_hub(run: RunFolder, repository: str, public: bool, merged: bool, licence: str | None) -> Uploaded:
    """Upload the model of a finished run, or its adapter unless it is to be `merged`, with the card, in one commit.

    The repository is made if it is missing, private unless `public`. Raises InputError (not finished, no such name, a
    repository that everybody sees), ModelError, MachineError (no login, no network).
    """
    run.check_finished(TO_EXPORT)
    token, adapter = _token(), is_adapter(trained_model(run)) and not merged
    if adapter:
        _check_base(run)
    with _folder(run, adapter) as folder, _explained(repository):
        return _upload(run, folder, repository, token, public, card(run, licence, adapter, repository))


def _token() -> str:
    from huggingface_hub import get_token

    if (token := get_token()) is None:
        raise MachineError(f"uploading needs a login of the Hugging Face hub, and none is stored: {LOGIN}")
    return token


def _check_base(run: RunFolder) -> None:
    """Raises InputError if nobody else could find the adapter's base."""
    base = read_base(run.model)
    if base.name is None or Path(base.name).is_absolute() or Path(base.name).exists():
        raise InputError(
            f"{run.name}: its adapter belongs to {base.name or 'a base that it does not name'}, which is not on the "
            "hub, so nobody else could use it: --merge uploads the whole model"
        )


@contextmanager
def _folder(run: RunFolder, adapter: bool) -> Iterator[Path]:
    if adapter:
        yield trained_model(run)
        return
    with whole_model(run, "uploaded") as folder:
        yield folder


def _upload(run: RunFolder, folder: Path, repository: str, token: str, public: bool, text: str) -> Uploaded:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    made = api.create_repo(repository, private=not public, exist_ok=True)
    private = bool(api.repo_info(made.repo_id).private)
    if not private and not public:
        raise InputError(f"{made.repo_id}: there already, and everybody sees it: --public uploads to it all the same")
    files = {name: folder / name for name in model_files(folder)}
    operations = [CommitOperationAdd(name, path) for name, path in files.items()]
    operations.append(CommitOperationAdd(CARD, text.encode()))
    done = api.create_commit(made.repo_id, operations, commit_message=f"{run.name}, run {run.identity}")
    return Uploaded(str(made), done.oid, len(operations), private)


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Errors of the hub and of its client as ours, in one line and without the token."""
    from huggingface_hub import constants, errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of its HTTP library

    try:
        yield
    except errors.HFValidationError as error:
        raise InputError(f"--repo {repository}: {error}") from None
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in DENIED:
            raise MachineError(f"the hub refuses the login for {repository}: {LOGIN}") from None
        raise MachineError(f"the hub refuses {repository}: {mask(' '.join(str(error).split()))}") from None
    except (HTTPError, ConnectionError) as error:
        raise MachineError(
            f"{constants.ENDPOINT}: the hub cannot be reached ({type(error).__name__}; HF_ENDPOINT names another); "
            "`export --to card` makes the card here"
        ) from None
