"""Where configs are: the folders that are searched (by Hydra too), and the names in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

EXPERIMENT = "experiment"
"""The group whose files are complete experiments; `+experiment=NAME` chooses one."""
PLUGGED = ("hydra/launcher", "hydra/sweeper")
GRID_SWEEPER = "hydra_plugins.tunix_rt_sweeps.grid_sweeper.GridSweeper"
"""Every combination of `-m KEY=A,B OTHER=C,D`, and of `hydra.sweeper.params`."""


def config_folders() -> list[Path]:
    """Folders searched for configs: `conf/` of the working directory first, then the installed one."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf" if (package / "conf").is_dir() else package.parent / "conf"
    own = (Path.cwd() / "conf").resolve()
    return [own, installed] if own.is_dir() and own != installed else [installed]


@cache
def search_working_directory() -> None:
    """Make Hydra look into `conf/` of the working directory before the installed configs, once per process."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class WorkingDirectory(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in config_folders()[:-1]:
                search_path.prepend(provider="working-directory", path=f"file://{folder}", anchor="main")

    Plugins.instance().register(WorkingDirectory)
    _prefer_ours()


def _prefer_ours() -> None:
    """Take launchers and sweepers from `conf/hydra/` only; Hydra would merge them with stored ones of the same name.

    `basic`, the default, has no file there: DVC's composition would warn about it each time.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group in PLUGGED:
        for name in files(group, config_folders()):
            store.repo["hydra"][group.removeprefix("hydra/")].pop(f"{name}.yaml", None)
    grid = {"_target_": GRID_SWEEPER, "max_batch_size": None, "params": None}
    store.store(group="hydra/sweeper", name="basic", node=grid, provider="tunix_rt")


def groups() -> dict[str, list[str]]:
    """Group → names that can be chosen for it; without experiments, and without Hydra's own groups."""
    folders = config_folders()
    found = {path.parent.relative_to(folder).as_posix() for folder in folders for path in folder.rglob("*.yaml")}
    ours = sorted(group for group in found if group.split("/")[0] not in (".", "", EXPERIMENT, "hydra"))
    return {group: choices(group, folders) for group in ours}


def choices(group: str, folders: Iterable[Path]) -> list[str]:
    """Names that can be chosen for a group, sorted."""
    return sorted(files(group, folders) | ({"basic"} if group in PLUGGED else set()))


def files(group: str, folders: Iterable[Path]) -> set[str]:
    """Names of the group's files."""
    found = {file.stem for folder in folders for file in (folder / group).glob("*.yaml")}
    return {name for name in found if not name.startswith("_")}


def with_kind(group: str, kind: str) -> list[str]:
    """Names of the group's files whose section is of a kind, sorted."""
    paths = (file for folder in config_folders() for file in (folder / group).glob("*.yaml"))
    return sorted({file.stem for file in paths if re.search(rf"\bkind: {kind}\b", file.read_text("utf-8"))})
