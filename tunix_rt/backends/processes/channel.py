"""The connection between the leader and each follower: authenticated both ways, a message at a time.

The handshake and the framing are those of `multiprocessing.connection`; what is sent is never unpickled.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from tunix_rt.backends.processes.messages import pack, unpack
from tunix_rt.backends.processes.world import World
from tunix_rt.errors import RunError

VERSION = version("tunix_rt")
"""What the processes of a job must agree on."""
KEY, PORT = "TUNIX_RT_JOB_KEY", "TUNIX_RT_JOB_PORT"
"""Variables with what both ends must know to be let in, and with the leader's port, if it is known."""
PORTS = 8
"""How many ports after the launcher's are tried: others may listen on some of them."""
HANDSHAKE = 10.0
"""Seconds that whoever connects has to prove that it knows the key."""
PATIENCE = 300.0
"""Seconds within which all processes of a job have to be there: a scheduler may start some of them minutes later."""
RETRY = 0.1
"""Seconds between two attempts to reach the leader."""
_REFUSED = (OSError, EOFError, AuthenticationError)


class Channel:
    """One end of a connection. Any thread may send, one thread receives."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message. Raises OSError if nobody is at the other end."""
        self.send_packed(pack(message))

    def send_packed(self, data: bytes) -> None:
        """The same of a message that is packed already."""
        with self._sending:
            self._connection.send_bytes(data)

    def receive(self) -> dict[str, Any]:
        """Wait for the next message. Raises EOFError or OSError if the other end is closed."""
        return unpack(self._connection.recv_bytes())


def job_key(environment: Mapping[str, str] = os.environ) -> bytes:
    """What the processes of a job know, and others need not: the variable `KEY`, or else the names that the launcher
    gave the job, which keep jobs apart but are no secret."""
    names = (KEY, "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "MASTER_ADDR", "MASTER_PORT")
    said = environment.get(KEY) or repr([environment.get(name) for name in names])
    return hashlib.sha256(said.encode()).digest()


def ports_of(world: World, environment: Mapping[str, str] = os.environ) -> list[int]:
    """Ports at which the leader may listen, the likeliest first."""
    if PORT in environment:
        return [int(environment[PORT])]
    return [1024 + (world.port - 1023 + number) % (65536 - 1024) for number in range(PORTS)]


def listen(address: str, ports: Sequence[int]) -> socket.socket:
    """Listen on the first port that is free; on this machine alone if `address` is of it alone. Raises RunError."""
    host = address if address.startswith("127.") or address == "localhost" else ""
    for port in ports:
        try:
            return socket.create_server((host, port), backlog=1024)
        except OSError as error:
            refused = error
    raise RunError(f"the processes of this job cannot meet on a port of {ports}: {refused.strerror}")


def accept(connected: socket.socket, key: bytes) -> Channel | None:
    """The process that has connected to the leader; None if it does not know the key."""
    try:
        return _channel(connected, key, (deliver_challenge, answer_challenge))
    except _REFUSED:
        return None


def connect(world: World, key: bytes, patience: float = PATIENCE) -> Channel:
    """The connection to the leader, as soon as it listens. Raises RunError if it does not within `patience` seconds.

    A leader that starts its followers itself listens before it does: if it refuses them, or is not their parent any
    more, it has ended, and this raises EOFError.
    """
    deadline, ports = time.monotonic() + patience, ports_of(world)
    parent = os.getppid() if PORT in os.environ else None
    while time.monotonic() < deadline:
        for port in ports:
            try:
                connected = socket.create_connection((world.address, port), timeout=HANDSHAKE)
                return _channel(connected, key, (answer_challenge, deliver_challenge))
            except _REFUSED as error:
                if parent is not None and (isinstance(error, ConnectionRefusedError) or os.getppid() != parent):
                    raise EOFError(f"the leader of process {world.rank} has ended") from None
        time.sleep(RETRY)
    raise RunError(
        f"process {world.rank} of {world.size} found no leader at {world.address}, ports {ports[0]} and the next "
        f"{len(ports) - 1}, within {patience:.0f} s: did process 0 end, or is a port closed between the machines?"
    )


def _channel(connected: socket.socket, key: bytes, handshake: Sequence[Any]) -> Channel:
    """Both ends prove that they know the key, each within `HANDSHAKE` seconds. Raises one of `_REFUSED`."""
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _notice_a_dead_machine(connected)
    _wait_at_most(connected, HANDSHAKE)
    with connected.dup() as kept:
        connection = Connection(connected.detach())
        try:
            for step in handshake:
                step(connection, key)
            _wait_at_most(kept, 0)
        except BaseException:
            connection.close()
            raise
    return Channel(connection)


def _wait_at_most(connected: socket.socket, seconds: float) -> None:
    """Limit of every later wait for bytes; 0: none. `settimeout` would not hold for who reads the descriptor."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(seconds), 0))


def _notice_a_dead_machine(connected: socket.socket) -> None:
    """A process that ends closes its connection; a machine that loses its power does not, and is asked for."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
