"""From a name to a backend: only the framework that was asked for, and a clear line where it is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunix_rt.backends.registry import create, require
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.execution import BackendConfig, HardwareConfig
from tunix_rt.errors import MissingExtra


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_every_choice_has_a_backend(name: str, tmp_path: Path) -> None:
    hardware = HardwareConfig(platform="cpu", threads="auto")
    backend = create(BackendConfig(name=name, precision="float32"), hardware, tmp_path)  # type: ignore[arg-type]
    assert backend.placement.platform == "cpu"
    assert backend.describe()


@pytest.mark.parametrize("name", BACKENDS)
def test_a_missing_framework_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, BACKENDS[name].package, raising=False)
    with pytest.raises(MissingExtra, match=rf"--extra {BACKENDS[name].extra}"):
        require(name)


def test_requiring_imports_nothing() -> None:
    """The check runs on the way to an error message, which must not wait for a framework."""
    code = (
        "import sys\nfrom tunix_rt.backends.registry import require\nrequire('jax'); require('torch')\n"
        "assert not {'jax', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
