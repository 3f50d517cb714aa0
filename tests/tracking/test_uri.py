"""URIs of stores."""

import socket
from pathlib import Path

import pytest

from tunix_rt.tracking.uri import problem, resolve


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("sqlite:///mlflow.db", "sqlite:////home/me/here/mlflow.db"),
        ("sqlite:///../other.db", "sqlite:////home/me/other.db"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
        ("http://host:5000", "http://host:5000"),
        ("postgresql://me:secret@host/db", "postgresql://me:secret@host/db"),
    ],
)
def test_a_relative_file_lies_where_the_run_was_first_followed(uri: str, absolute: str) -> None:
    assert resolve(uri, Path("/home/me/here")) == absolute


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert problem(f"http://127.0.0.1:{port}") is None
    line = problem(f"http://me:secret@127.0.0.1:{port}")
    assert line is not None
    assert f"http://me:***@127.0.0.1:{port} is not reachable" in line
    assert problem("sqlite:///mlflow.db") is None
