"""From a name to a backend: only the framework that was asked for, and a clear line where it is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunix_rt.backends.registry import available, create, num_devices, require
from tunix_rt.config.choices import BACKENDS
from tunix_rt.config.execution import BackendConfig, HardwareConfig, MeshConfig
from tunix_rt.errors import DeviceError, MissingExtra


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


SHARDED = MeshConfig(data=1, shard=2, tensor=1)


@pytest.mark.parametrize("name", ["jax", "torch"])
def test_a_model_is_asked_on_the_devices_that_are_there(name: str) -> None:
    """Prevents: a run that was made on 16 GPUs, or by a launcher, that can be asked there only."""
    backend = BackendConfig(name=name, precision="float32")  # type: ignore[arg-type]
    pair = HardwareConfig(platform="cpu", threads=1, devices=2, mesh=SHARDED)
    assert available(backend, pair) == pair and num_devices(backend, pair) == 2
    launched = HardwareConfig(platform="cpu", threads=1, devices="all", mesh=SHARDED)
    with pytest.raises(DeviceError, match=r"shard 2, tensor 1 cannot be filled by 1 devices: set hardware\.mesh"):
        num_devices(backend, launched)
    found = available(backend, launched)
    assert (found.devices, found.mesh) == ("all", MeshConfig())
    gpus = HardwareConfig(platform="gpu", threads=1, devices=(2, 3), mesh=SHARDED)
    with pytest.raises(DeviceError, match="sees no such device; present: cpu: 0"):
        num_devices(backend, gpus)
    found = available(backend, gpus)
    assert (found.platform, found.devices, found.mesh) == ("auto", 1, MeshConfig())
