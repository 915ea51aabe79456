"""A store in this process, for tests: the ledger behind the limiters that talk to a server."""

from __future__ import annotations
