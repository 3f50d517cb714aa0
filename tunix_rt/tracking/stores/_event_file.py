"""TensorBoard's event files, written and read through its own protobufs, without TensorFlow or torch.

A file is a sequence of framed `Event`s (tensorflow/core/util/event.proto); TensorBoard shows all files of a folder as
one run. Each process writes a file of its own, so that one that was killed leaves at most a torn last event, which
readers pass over. Imports TensorBoard when called.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunix_rt.tracking.store import StoreError
from tunix_rt.tracking.stores._held import Held, Mark

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

VERSION = "brain.Event:2"
"""What the first event of a file says."""
PREFIX = "events.out.tfevents"
PARAMETERS = f"{PREFIX}.0000000000.parameters"
"""The file that is written again when more is known. It is read first: of a tag of the plugin HPARAMS only the first
value counts."""


class EventFolder:
    """The event files of one run. Values that are there already are not written again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._held = Held(mark for event in events(folder) for mark in _marks(event))

    def add(self, values: list[Any], step: int, time: int) -> None:
        """Append an event with those `Summary.Value`s that the run does not have at this step and time."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if new := self._held.missing([value.tag for value in values], step, time):
            summary = Summary(value=[value for value in values if value.tag in new])
            with self._writing():
                self._append(Event(wall_time=time / 1000, step=step, summary=summary))
            self._held.update((tag, step, time) for tag in new)

    def declare(self, values: list[Any], time: int) -> None:
        """Write these `Summary.Value`s instead of those that were declared before."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        part = self._folder / ".parameters.part"  # a name that TensorBoard does not read
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                writer = RecordWriter(file)
                writer.write(Event(wall_time=time / 1000, file_version=VERSION).SerializeToString())
                writer.write(Event(wall_time=time / 1000, summary=Summary(value=values)).SerializeToString())
            part.replace(self._folder / PARAMETERS)

    def flush(self) -> None:
        """Hand what was added to the operating system: it then survives this process."""
        if self._writer is not None:
            with self._writing():
                self._writer.flush()

    def close(self) -> None:
        """Close the file; what is added later goes to another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"TensorBoard: {self._folder}: {error.strerror}") from error

    def _append(self, event: Event) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            number = len(list(self._folder.glob(f"{PREFIX}.*")))  # TensorBoard reads the files in order of their names
            name = f"{PREFIX}.{int(event.wall_time):010d}.{number:04d}.{platform.node()}.{os.getpid()}"
            self._writer = RecordWriter((self._folder / name).open("xb"))
            self._writer.write(Event(wall_time=event.wall_time, file_version=VERSION).SerializeToString())
        self._writer.write(event.SerializeToString())


def remove(folder: Path) -> None:
    """Remove the event files of a folder, and the folder if nothing else is in it."""
    for file in folder.glob(f"{PREFIX}.*"):
        file.unlink()
    with suppress(OSError):
        folder.rmdir()


def events(folder: Path) -> Iterator[Event]:
    """The whole events of a folder's files, in order."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.errors import DataLossError, OutOfRangeError
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    for file in sorted(folder.glob(f"{PREFIX}.*")):
        reader = PyRecordReader_New(str(file))
        while True:
            try:
                reader.GetNext()
            except (OutOfRangeError, DataLossError):
                break
            yield Event.FromString(reader.record())


def _marks(event: Event) -> Iterator[Mark]:
    time = round(1000 * event.wall_time)
    return ((value.tag, event.step, time) for value in event.summary.value)


def scalar(tag: str, value: float) -> Any:
    """A number; TensorBoard keeps it as float32."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary.Value(tag=tag, simple_value=value)


def text(tag: str, content: str) -> Any:
    """Markdown."""
    from tensorboard.plugins.text.metadata import create_summary_metadata

    return _tensor(tag, create_summary_metadata(tag, ""), content)


def image(tag: str, png: bytes) -> Any:
    """A PNG file."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of the header chunk, IHDR
    picture = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=png)
    return Summary.Value(tag=tag, image=picture)


def session(parameters: dict[str, str], name: str, started: float) -> Any:
    """The hyperparameters of a run, for TensorBoard's page HPARAMS; `started` in Unix seconds."""
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    info = SessionStartInfo(group_name=name, start_time_secs=started)
    for key, value in parameters.items():
        info.hparams[key].CopyFrom(_parameter(value))
    return _hparams(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def end(failed: bool, ended: float) -> Any:
    """How the run with those hyperparameters ended, at Unix seconds."""
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    info = SessionEndInfo(status=STATUS_FAILURE if failed else STATUS_SUCCESS, end_time_secs=ended)
    return _hparams(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _parameter(value: str) -> Any:
    """A number where it reads as one, so that the page can order and filter by it."""
    from google.protobuf.struct_pb2 import Value

    if value in ("true", "false"):
        return Value(bool_value=value == "true")
    try:
        return Value(number_value=float(value))
    except ValueError:
        return Value(string_value=value)


def _hparams(tag: str, data: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    return Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)


def _tensor(tag: str, metadata: Any, content: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[content.encode()])
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)
