"""Help for tests: virtual time on both event loops. Needs neither Trio nor pytest to import."""

from ._backends import virtual_backends, wait_idle
from ._conformance import LimiterConformance

__all__ = ("LimiterConformance", "virtual_backends", "wait_idle")
