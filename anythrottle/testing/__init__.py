"""Help for tests: virtual time on both event loops. Needs neither Trio nor pytest to import."""

from ._backends import virtual_backends, wait_idle

__all__ = ("virtual_backends", "wait_idle")
