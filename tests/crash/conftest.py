"""A laboratory for each backend: a process that forks, and a folder for its experiments."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.crash.cases import Laboratory
from tests.crash.forked import Forking


@pytest.fixture(scope="session")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Laboratory]]:
    """Of a backend, made where it is first asked for."""
    made: dict[str, Laboratory] = {}

    def of(backend: str) -> Laboratory:
        if backend not in made:
            folder = tmp_path_factory.mktemp(backend)
            made[backend] = Laboratory(Forking(backend, folder), folder)
        return made[backend]

    yield of
    for one in made.values():
        one.forking.close()
