"""A laboratory for each backend: a process that forks, and a folder for its experiments."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.crash.cases import Laboratory
from tests.crash.forked import Forking


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Laboratory]]:
    """Of a backend and a number of processes, made where it is first asked for."""
    forking: dict[str, Forking] = {}
    made: dict[tuple[str, int], Laboratory] = {}

    def of(backend: str, processes: int = 1) -> Laboratory:
        if backend not in forking:
            forking[backend] = Forking(backend, tmp_path_factory.mktemp(backend))
        if (backend, processes) not in made:
            made[backend, processes] = Laboratory(forking[backend], tmp_path_factory.mktemp(backend), processes)
        return made[backend, processes]

    yield of
    for one in forking.values():
        one.close()
