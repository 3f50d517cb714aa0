"""A run in progress: its config, its identities, its folders. The requests of the stages are filled from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunix_rt.config.identity import identities
from tunix_rt.config.model import RunModel
from tunix_rt.config.schema import ExperimentConfig
from tunix_rt.inputs import prepared_folder
from tunix_rt.models.sources import Store
from tunix_rt.runs.folder import RunFolder
from tunix_rt.runs.interrupt import Interrupt
from tunix_rt.traces.prepared import PreparedData


@dataclass(frozen=True, slots=True)
class RunContext:
    """Everything the engine knows about a run."""

    config: ExperimentConfig
    input_digests: Mapping[str, str]
    """Digest of each local file and model that the config names."""
    chain: Mapping[str, str]
    """The identity of each stage (`chain_of`)."""
    run: RunFolder
    interrupt: Interrupt
    store: Store
    """Where registered models are found."""
    base: RunFolder | None = None
    """A run whose finished stages are reused, and whose data is used."""
    home: Path | None = None
    """For DVC: the checkout. Each stage then has its own folder, and the data is where `dvc.yaml` says."""
    earlier: RunFolder | None = None
    """The run whose model this one begins from, if that is of an experiment (`model.source.kind: run`)."""

    @property
    def start(self) -> Path | None:
        """Folder of the model of `earlier`; for DVC a copy, which its stages hand on."""
        source = self.config.model.source
        if self.home is not None and isinstance(source, RunModel):
            return Path(source.dvc_path)
        return None if self.earlier is None else self.earlier.model

    @property
    def prepared(self) -> PreparedData:
        """Where the prepared data is or will be."""
        if self.home is not None:
            return PreparedData(Path(self.config.run.data) / self.run.path.name)
        if self.base is not None:
            recorded = PreparedData(self.base.data_folder)
            if recorded.is_whole and not recorded.damage():
                return recorded
        return PreparedData(prepared_folder(self.config, self.chain["prepare"]))


def chain_of(
    config: ExperimentConfig, input_digests: Mapping[str, str], kept: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The identity of each stage; a report is identified by the results that it shows. `kept`: see `identities`."""
    chain = identities(config, input_digests, kept)
    return chain | {"report": chain["evaluate"]}
