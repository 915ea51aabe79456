"""The words of ASGI: what a server calls an application with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

#: What a connection is, as the server says it.
Scope: TypeAlias = MutableMapping[str, Any]  # pyright: ignore[reportExplicitAny] # as servers and frameworks have it

#: What is sent and received.
Message: TypeAlias = MutableMapping[str, Any]  # pyright: ignore[reportExplicitAny]

Receive: TypeAlias = Callable[[], Awaitable[Message]]

Send: TypeAlias = Callable[[Message], Awaitable[None]]

#: An application.
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
