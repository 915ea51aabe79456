"""A connection to a server, without a client library: what is sent and read, in order."""

from __future__ import annotations

import socket
from typing import Any, TypeAlias

from tests.stores.servers import HOST

Part: TypeAlias = str | int | bytes


class Refused(Exception):
    """The server has answered with an error."""


class PlainClient:
    """A connection to the server at a port of this machine."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port))
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, *command: Part) -> Any:
        """Return the answer to a command."""
        self.send(*command)
        return self.read()

    def send(self, *command: Part) -> None:
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
        lengths = [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
        self._socket.sendall(b"*%d\r\n%b" % (len(parts), b"".join(lengths)))

    def read(self) -> Any:
        """Return the next answer, or message: an integer, a text, a list of such, or nothing."""
        kind, rest = self._file.read(1), self._file.readline()[:-2].decode()
        if kind == b"-":
            raise Refused(rest)

        if kind == b"+":
            return rest

        number = int(rest)
        if kind == b":" or number < 0:
            return number if kind == b":" else None

        if kind == b"*":
            return [self.read() for _ in range(number)]

        return self._file.read(number + 2)[:-2].decode("utf-8", "surrogateescape")
