"""Messages between processes: the same values on the other side, never code; and only for those who know the key."""

from __future__ import annotations

import math
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunix_rt.backends.interface import AdapterSetup, Piece, TrainingSetup
from tunix_rt.backends.processes import channel
from tunix_rt.backends.processes.channel import KEY, Channel, accept, connect, job_key, listen, ports_of
from tunix_rt.backends.processes.messages import Held, pack, unpack
from tunix_rt.backends.processes.world import World
from tunix_rt.batches.batch import Batch
from tunix_rt.config.model import LoraAdapter
from tunix_rt.config.optimizers import AdamWConfig
from tunix_rt.errors import RunError
from tunix_rt.models.adapter_folder import Base

BATCH = Batch.supervised(*(np.arange(6, dtype=np.int32).reshape(2, 3) + n for n in range(4)), np.eye(2, 3, dtype="f4"))
LORA = LoraAdapter(
    kind="lora", rank=2, alpha=4.0, dropout=0.1, target=("q_proj", "v_proj"), rslora=False, path=None, quantize="nf4"
)
ADAMW = AdamWConfig(
    kind="adamw", learning_rate=1e-3, beta1=0.9, beta2=0.1 + 0.2, eps=1e-8, weight_decay=0.0, no_decay=("norms",)
)
SETUP = TrainingSetup(ADAMW, 1.0, 2**63 + 1, AdapterSetup(LORA, Base("a", None, "b" * 64)))


def test_every_value_of_the_interface_arrives_as_it_was() -> None:
    said: dict[str, Any] = {
        "plain": [None, True, -3, 1e-320, 2**64 - 1, "é\u202e\n", math.inf, {"a": 1, 2: "b"}],
        "records": (SETUP, Held(7), Piece(3, np.array([5, 6], np.int32), np.array([-0.1, -2], np.float32), "stop", 1)),
        "path": Path("/a/b"),
        "numpy": np.float64(0.1),
    }
    found = unpack(pack(said))
    assert found["plain"] == said["plain"] and found["path"] == said["path"] and found["numpy"] == 0.1
    assert found["records"][:2] == said["records"][:2]
    assert repr(found["records"][2]) == repr(said["records"][2])
    assert unpack(pack({"path": Path("here")}))["path"] == Path.cwd() / "here"


@pytest.mark.parametrize("shape", [(2, 3), (0, 4), ()])
@pytest.mark.parametrize("dtype", ["int32", "float32", "float64", "bool", "uint8"])
def test_arrays_keep_their_bits_and_can_be_written_to(shape: tuple[int, ...], dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    found = unpack(pack({"first": array, "batch": BATCH, "last": array[..., ::-1] if shape else array}))
    assert found["first"].dtype == array.dtype and np.array_equal(found["first"], array)
    assert np.array_equal(found["last"], array[..., ::-1] if shape else array)
    assert np.array_equal(found["batch"].weights, BATCH.weights) and found["batch"].divisor == BATCH.divisor
    found["first"][...] = 1


def test_what_is_no_value_of_the_interface_is_refused() -> None:
    with pytest.raises(TypeError, match="Random"):
        pack({"x": __import__("random").Random(0)})
    with pytest.raises(KeyError):
        unpack(pack({"x": Held(1)}).replace(b"Held", b"Path"))
    with pytest.raises(Exception, match=r"."):
        unpack(pickle.dumps({"x": 1}))


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with closing(listen("127.0.0.1", [0])) as found:
        yield found


def test_only_who_knows_the_key_is_let_in(listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger who says nothing keeps nobody waiting for ever, and one with another key is sent away."""
    monkeypatch.setattr(channel, "HANDSHAKE", 1.0)
    world, key = World(1, 2, port=listening.getsockname()[1] - 1), job_key({KEY: "ours"})
    assert ports_of(world)[0] == listening.getsockname()[1] and len(set(ports_of(world))) == channel.PORTS
    inside: list[Channel] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                if (found := accept(listening.accept()[0], key)) is not None:
                    inside.append(found)

    threading.Thread(target=serve, daemon=True).start()
    with socket.create_connection(("127.0.0.1", listening.getsockname()[1])):
        with pytest.raises(RunError):
            connect(world, job_key({KEY: "theirs"}), patience=0.5)
        assert not inside
        there = connect(world, key, patience=20)
    while not inside:
        time.sleep(0.01)
    (ours,) = inside
    ours.send({"batch": BATCH})
    assert np.array_equal(there.receive()["batch"].tokens, BATCH.tokens)


def test_a_leader_that_is_not_there_is_named() -> None:
    with closing(listen("127.0.0.1", [0])) as free:
        port = free.getsockname()[1]
    with pytest.raises(RunError, match=r"process 1 of 2 found no leader at 127.0.0.1, ports \d+ and the next 7"):
        connect(World(1, 2, port=port - 1), b"key", patience=0.3)


def test_a_port_that_is_taken_is_passed_over(listening: socket.socket) -> None:
    taken = listening.getsockname()[1]
    with closing(listen("127.0.0.1", [taken, 0])) as other:
        assert other.getsockname()[1] != taken
    with pytest.raises(RunError, match="cannot meet"):
        listen("127.0.0.1", [taken])
