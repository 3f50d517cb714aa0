"""What TensorBoard's own reader finds in the event files."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from tests.tracking import one_store
from tunix_rt.tracking.store import Facts, StoreError
from tunix_rt.tracking.tail import Point

SCRIPT = Path(one_store.__file__)
GUIDANCE = {"scalars": 0, "images": 0, "tensors": 0}


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance=GUIDANCE)
    found.Reload()
    return found


def sent(points: list[Point], key: str) -> list[tuple[int, float, float]]:
    """What a reader must find of a metric; TensorBoard keeps float32."""
    return [
        (point.step, point.time / 1000, struct.unpack("f", struct.pack("f", point.value))[0])
        for point in points
        if point.key == key
    ]


def kept(found: EventAccumulator, key: str) -> list[tuple[int, float, float]]:
    return [(event.step, event.wall_time, event.value) for event in found.Scalars(key)]


def test_a_killed_process_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The torn end of its file is passed over, and the next process sends everything again: only the rest is added."""
    killed = subprocess.run([sys.executable, str(SCRIPT), "tensorboard", "{}", str(tmp_path), "4"], check=False)
    assert killed.returncode == -9
    first = max((tmp_path / "tensorboard").iterdir())
    with first.open("ab") as file:
        file.write(b"\x40\0\0\0\0\0\0\0torn")
    store = one_store.opened("tensorboard", {}, tmp_path)
    points = one_store.points(1, 6)
    store.metrics(points[:5])
    store.metrics(points)
    one_store.everything(store, tmp_path)
    store.close("finished", one_store.STARTED + 10_000)
    found = read(tmp_path / "tensorboard")
    for key in ("train/loss", "eval/loss", "system/cpu"):
        assert kept(found, key) == sent(points, key)
    (figure,) = found.Images("figures/loss")
    assert (figure.width, figure.height, figure.encoded_image_string) == (2, 1, one_store.PNG)
    (report,) = found.Tensors("report.md")
    assert report.tensor_proto.string_val[0].startswith(b"# Report\n\n**half**")
    (table,) = found.Tensors("predictions")
    assert table.tensor_proto.string_val[0].decode().splitlines()[3] == "| 1+2= | 4\\|5 | False |"
    plugin = found.PluginTagToContent("hparams")
    parameters = metadata.parse_session_start_info_plugin_data(plugin[metadata.SESSION_START_INFO_TAG]).hparams
    assert (parameters["training.max_steps"].number_value, parameters["backend.name"].string_value) == (6.0, "torch")
    assert metadata.parse_session_end_info_plugin_data(plugin[metadata.SESSION_END_INFO_TAG]).status == 1


def test_a_declared_folder_has_a_folder_for_each_run(tmp_path: Path) -> None:
    store = one_store.opened("tensorboard", {"log_dir": str(tmp_path / "logs")}, tmp_path / "run")
    store.metrics(one_store.points(1, 1))
    store.close("running", None)
    place = tmp_path / "logs" / "tests" / "quickstart-01234567-f00f00f0"
    assert kept(read(place), "train/loss") == sent(one_store.points(1, 1), "train/loss")
    for id_in_record in ("tests/quickstart-01234567-f00f00f0", str(place)):  # that of today, and an older version's
        store.remove(id_in_record)
        assert not place.exists()


def test_a_path_in_a_record_is_never_removed(tmp_path: Path) -> None:
    """Prevents: a copy of a run, removed with --tracking, that takes with it what the original has."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "work.txt").write_text("of somebody")
    for settings in ({}, {"log_dir": str(tmp_path)}):
        store = one_store.opened("tensorboard", settings, tmp_path / "run")
        store.remove(str(theirs))
        store.experiment = "theirs"
        store.remove(str(tmp_path / "run" / ".."))  # absolute: code with the fault must find nothing but this folder
    store.experiment = "."
    store.remove("theirs")
    assert (theirs / "work.txt").exists()


def test_what_is_known_later_replaces_what_was_known_first(tmp_path: Path) -> None:
    """Prevents: versions and commit missing from HPARAMS, or a run that was killed, went on and is shown as failed."""
    store = one_store.opened("tensorboard", {}, tmp_path)
    store.params(Facts({"seed": "0"}))
    store.metrics(one_store.points(1, 2))
    store.close("killed", one_store.STARTED + 1000)
    again = one_store.opened("tensorboard", {}, tmp_path)
    again.params(Facts({"seed": "0"}))
    again.params(Facts({"seed": "0"}, {"version.torch": "2.9.1"}, note="**finished**"))
    again.close("finished", one_store.STARTED + 2000)
    found = read(tmp_path / "tensorboard")
    plugin = found.PluginTagToContent("hparams")
    parameters = metadata.parse_session_start_info_plugin_data(plugin[metadata.SESSION_START_INFO_TAG]).hparams
    assert {name: value.string_value for name, value in parameters.items()} == {"seed": "", "version.torch": "2.9.1"}
    assert metadata.parse_session_end_info_plugin_data(plugin[metadata.SESSION_END_INFO_TAG]).status == 1
    (note,) = found.Tensors("description")
    assert note.tensor_proto.string_val[0] == b"**finished**"


def test_a_folder_that_cannot_be_written_is_an_error_of_the_store(tmp_path: Path) -> None:
    """Prevents: a traceback, and no second try once there is room again."""
    (tmp_path / "tensorboard").write_text("")
    store = one_store.opened("tensorboard", {}, tmp_path)
    with pytest.raises(StoreError, match="File exists"):
        store.metrics(one_store.points(1, 1))
    (tmp_path / "tensorboard").unlink()
    store.metrics(one_store.points(1, 2))
    store.close("running", None)
    assert len(read(tmp_path / "tensorboard").Scalars("train/loss")) == 2


def test_neither_a_framework_nor_tensorflow_is_imported(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(SCRIPT.parents[2])!r})
sys.argv = ["one_store.py", "tensorboard", "{{}}", {str(tmp_path)!r}, "1", "--close"]
from tests.tracking.one_store import main
main()
print({{"torch", "jax", "tensorflow", "mlflow", "wandb"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
