"""The inputs of a declared experiment before its first stage: the files it names, their versions, prepared data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tunix_rt.checked import replaced
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.dataset import FilesSource
from tunix_rt.config.identity import TEACHER, identities
from tunix_rt.config.load import earlier_of
from tunix_rt.config.model import FolderModel, FreshModel, RegistryModel, RunModel, ScratchModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.errors import ConfigError, DataError, ModelError
from tunix_rt.files import apply_umask, digest, read_json, read_record, sha256_bytes, sha256_file, write_json
from tunix_rt.inference.trained import trained_model
from tunix_rt.models.folder import read_config
from tunix_rt.models.sources import Source, Store, adapter_digest, content_digest, materialise
from tunix_rt.runs.folder import RunFolder, find_done
from tunix_rt.stages.prepare import CHUNKS, PrepareRequest, prepare
from tunix_rt.terminal import warn
from tunix_rt.traces.prepared import PreparedData
from tunix_rt.traces.sources import content_digest as dataset_digest
from tunix_rt.traces.sources import parts_of, source_files

LEDGER = "versions.json"


def input_digests(config: ExperimentConfig, store: Store) -> dict[str, str]:
    """Digest of each local file and model that the config names; registered models are in `store`.

    Raises DataError, ModelError if one is missing.
    """
    digests: dict[str, str] = {}
    for setting, files in _data_files(config).items():
        found = list(files.values())
        digests[setting] = found[0] if len(found) == 1 else digest(found)
    for part in parts_of(config.dataset.source):
        if (held := dataset_digest(part.source)) is not None:
            digests[part.setting] = held
    for key, source in {"model.source": config.model.source, TEACHER: teacher_of(config)}.items():
        if isinstance(source, RunModel):
            digests[key] = train_identity(earlier_of(config, source), store)
        elif source is not None and not isinstance(source, FreshModel | ScratchModel):
            digests[key] = content_digest(source, store)
    adapter = config.model.adapter
    if adapter is not None and adapter.path is not None:
        digests["model.adapter"] = adapter_digest(Path(adapter.path))
    return digests


def train_identity(config: ExperimentConfig, store: Store) -> str:
    """The identity of the stage `train` of an experiment. Raises what `input_digests` raises."""
    return identities(config, input_digests(config, store))["train"]


def teacher_of(config: ExperimentConfig) -> Source | RunModel | None:
    """The model that an objective learns from (`objective.teacher`), if it does."""
    found: Source | RunModel | None = getattr(config.objective, "teacher", None)
    return found


def trained_by(config: ExperimentConfig, source: RunModel, store: Store, home: Path = Path()) -> RunFolder:
    """The finished run of the experiment that a source of `config` names; a relative `run.root` is in `home`.

    Raises ModelError if there is none (`experiment.run` would make it first), or none whose model is unchanged.
    """
    earlier = earlier_of(config, source)
    identity, problem = train_identity(earlier, store), None
    for run in find_done(home / config.run.root, earlier.name, "train", identity):
        try:
            trained_model(run)
            return run
        except ModelError as error:
            problem = problem or str(error)
    missing = f"no run of {earlier.name} in {config.run.root} has trained it (its identity of train is {identity})"
    raise ModelError(problem or f"{missing}; the command of the experiment itself does so first")


def teacher_folder(config: ExperimentConfig, store: Store, home: Path = Path()) -> Path | None:
    """The model folder of `objective.teacher`, fetched, converted or merged if it is not there yet."""
    source = teacher_of(config)
    if source is None:
        return None
    if isinstance(source, RunModel):
        source = FolderModel(kind="folder", path=str(trained_by(config, source, store, home).model))
    return materialise(source, _models(config), store)


def _data_files(config: ExperimentConfig) -> dict[str, dict[Path, str]]:
    """The sha256 of each local file that the dataset names, by the setting of its split. DataError: one is missing."""
    found: dict[str, dict[Path, str]] = {}
    for file in source_files(config.dataset.source):
        if not file.path.is_file():
            had, key = f"; download it from {file.origin}" if file.origin else "", f"{file.setting}.path"
            raise DataError(f"{key}: {file.path}: no such file{had}; put it there, or name yours with {key}=FILE")
        found.setdefault(file.setting, {})[file.path] = sha256_file(file.path)
    return found


def checked_digests(config: ExperimentConfig, store: Store, home: Path = Path()) -> dict[str, str]:
    """`input_digests`, after checking that a version of a dataset means the same bytes as ever.

    `data/<name>/versions.json` records which; a relative `run.data` is in `home`. Raises DataError naming the file that
    changed, and what `input_digests` raises.
    """
    digests = input_digests(config, store)
    ledger = home / config.run.data / config.dataset.name / LEDGER
    found = _data_files(config)
    for part in parts_of(config.dataset.source):
        if isinstance(part.source, FilesSource):
            files = [files for setting, files in found.items() if setting.startswith(f"{part.setting}.")]
            now = {str(file): sha256 for some in files for file, sha256 in some.items()}
            _check_version(ledger, str(part.source.version), now)
    return digests


def _check_version(ledger: Path, version: str, now: Mapping[str, str]) -> None:
    from filelock import FileLock

    ledger.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{ledger}.lock"):
        known = read_record(ledger)
        for file, sha256 in known.get(version, {}).items():
            if now.get(file, sha256) != sha256:
                raise DataError(
                    f"{file}: changed since version {version} of dataset {ledger.parent.name} was first used "
                    f"(sha256 {sha256[:12]}… then, {now[file][:12]}… now); name the new content with "
                    "dataset.source.version=…, or put the old file back"
                )
        if not now.items() <= known.get(version, {}).items():
            write_json(ledger, known | {version: {**known.get(version, {}), **now}})


def check_family(config: ExperimentConfig, store: Store) -> None:
    """Check the family of pretrained weights before anything is prepared, if a backend does not support all families.

    Raises ConfigError if the backend does not support it, else what `materialise` raises.
    """
    source, families = config.model.source, BACKENDS[config.backend.name].families
    if families is None or isinstance(source, FreshModel | ScratchModel | RunModel):  # the config check covers those
        return
    folder = materialise(source, _models(config), store)
    family = read_config(folder).get("model_type")
    if family not in families:
        raise ConfigError(
            f"model.source: {folder} holds a model of the family {family!r}, which backend "
            f"{config.backend.name!r} does not compute: one of {', '.join(families)}, or another backend"
        )


def write_prepared(
    config: ExperimentConfig, folder: Path, store: Store, weights: bool = True, start: Path | None = None
) -> None:
    """Fill `folder` with what `config` declares; see `prepare`. `start`: the model of the experiment that it begins
    from, found if not given.
    """
    source = config.model.source
    if isinstance(source, RunModel):
        start = start or _trained_first(config, source, folder, store, weights)
        source = FolderModel(kind="folder", path=str(start))
    request = PrepareRequest(
        seed=config.training.seed,
        source=source,
        stop_tokens=config.model.stop_tokens,
        tokenizer=config.tokenizer,
        dataset=config.dataset,
        format=config.format,
        folder=folder,
        models=_models(config),
        store=store,
        pairs=config.objective.data == "pairs",
        weights=weights,
    )
    prepare(request)


def _trained_first(config: ExperimentConfig, source: RunModel, folder: Path, store: Store, weights: bool) -> Path:
    """The model of the experiment that `config` begins from; if that is not trained yet and no weights are needed, one
    of its shape in `folder`. Raises ModelError.
    """
    try:
        return trained_by(config, source, store).model
    except ModelError:
        if weights:
            raise
    place = folder / "earlier"
    write_prepared(earlier_of(config, source), place, store, weights=False)
    return PreparedData(place).model_folder


def start_model(config: ExperimentConfig) -> Path:
    """The folder of the declared pretrained weights, fetched or converted if it is not there yet."""
    assert not isinstance(config.model.source, FreshModel | ScratchModel | RunModel)
    return materialise(config.model.source, _models(config))


def _models(config: ExperimentConfig) -> Path:
    """Folder of models that were fetched or converted."""
    return Path(config.run.data) / "models"


def prepared_folder(config: ExperimentConfig, identity: str) -> Path:
    """Folder of the prepared data with this identity, shared by all runs."""
    return Path(config.run.data) / config.dataset.name / identity


def ensure_prepared(config: ExperimentConfig, folder: Path, store: Store, start: Path | None = None) -> PreparedData:
    """The prepared data in `folder`, created if it is missing or damaged; one process creates it, others wait.
    `start`: see `write_prepared`.

    The lock is always taken: under it `gc` removes what nobody uses. Raises what `prepare` raises, and DataError if
    data prepared again differs from before.
    """
    prepared = PreparedData(folder)
    with _locked(folder):
        damaged = prepared.damage() if prepared.is_whole else []
        if damaged:
            warn(f"{damaged[0]}; the data is prepared again")
        if damaged or not prepared.is_whole:
            _prepare_beside(config, prepared, store, damaged, start)
    if isinstance(config.model.source, RegistryModel):  # its content is verified whenever it is loaded
        materialise(config.model.source, _models(config), store)
    return prepared


def _prepare_beside(
    config: ExperimentConfig, prepared: PreparedData, store: Store, damaged: Sequence[str], start: Path | None
) -> None:
    """Prepare in a temporary folder, which then replaces the old one; DataError if it is not what was `damaged`."""
    with replaced(prepared.folder, CHUNKS) as part:
        write_prepared(config, part, store, start=start)
        apply_umask(part)
        difference = prepared.difference(PreparedData(part)) if damaged else None
        if difference is not None:
            raise DataError(
                f"{damaged[0]}; prepared again it is not what it was ({difference} differs): "
                f"put the file back, or remove {prepared.folder} to go on with what is prepared today"
            )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Claim a folder of prepared data; a complete one may be on a read-only file system, and is then not locked."""
    from filelock import FileLock

    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:
        if not PreparedData(folder).is_whole:
            raise
    try:
        yield
    finally:
        lock.release()


def declared_folder(config: ExperimentConfig, store: Store) -> Path:
    """Folder of the prepared data that a config declares, there or not. Raises what `input_digests` raises."""
    return prepared_folder(config, identities(config, input_digests(config, store))["prepare"])


def prepared_data(config: ExperimentConfig, store: Store) -> PreparedData:
    """The prepared data that a config declares, created if it does not exist yet."""
    return ensure_prepared(config, declared_folder(config, store), store)


def check_recorded_data(run: RunFolder, prepared: PreparedData) -> None:
    """Raise DataError if `prepared`, which may have been prepared again, is not what the run used."""
    if prepared.manifest["digest"] != read_json(run.data)["digest"]:
        raise DataError(f"{prepared.folder}: not the data that {run.name} used (data.json there has another digest)")


def prepared_of(run: RunFolder, config: ExperimentConfig, store: Store) -> PreparedData:
    """The prepared data that a run used; prepared again if it is gone or damaged.

    Raises DataError if that is not the same.
    """
    prepared = PreparedData(run.data_folder)
    if not prepared.is_whole or prepared.damage():
        folder = prepared_folder(config, str(run.stages()["prepare"]["identity"]))
        prepared = ensure_prepared(config, folder, store)
    check_recorded_data(run, prepared)
    return prepared


@cache
def source_digest() -> str:
    """SHA-256 over the package's own source: recorded, so that a result of other code is recognised."""
    package = Path(__file__).parent
    files = sorted(package.rglob("*.py"))
    return sha256_bytes("".join(f"{file.relative_to(package)} {sha256_file(file)}\n" for file in files).encode())
