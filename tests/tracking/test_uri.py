"""URIs of stores."""

from pathlib import Path

import pytest

from tunix_rt.tracking.stores._mlflow_uri import resolve, ui_command


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
def test_a_relative_file_is_where_the_run_was_first_sent_from(uri: str, absolute: str) -> None:
    assert resolve(uri, Path("/home/me/here")) == absolute


def test_the_ui_is_served_to_this_machine_only_and_shows_no_password() -> None:
    command = ui_command("sqlite:///mlflow.db")
    end = "mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000"
    assert command.endswith(end)
    assert ui_command("http://me:secret@host:5000") == "http://me:***@host:5000"
    assert "secret" not in ui_command("postgresql://me:secret@host/db")
