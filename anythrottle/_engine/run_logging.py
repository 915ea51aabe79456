"""Gives the library's logger a handler and a level while a run lasts."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from .._policies.checks import check_count

_logger = logging.getLogger("anythrottle")

#: What the runs under way have asked for, and the level before the first of them.
_handlers: list[logging.Handler] = []
_levels: list[int] = []
_level_before = logging.NOTSET


@contextmanager
def logging_during_run(handler: logging.Handler | None, level: int | None) -> Generator[None]:
    """
    Attach ``handler`` and set ``level``, and undo both at the end.

    Runs may overlap: a handler is attached once, and the lowest level holds.
    """
    global _level_before  # noqa: PLW0603 - the logger is global too
    attached = handler is not None and (handler in _handlers or handler not in _logger.handlers)
    if handler is not None and attached:
        _handlers.append(handler)
        _logger.addHandler(handler)

    if level is not None:
        if not _levels:
            _level_before = _logger.level

        _levels.append(level)
        _logger.setLevel(min(_levels))

    try:
        yield
    finally:
        if handler is not None and attached:
            _handlers.remove(handler)
            if handler not in _handlers:
                _logger.removeHandler(handler)

        if level is not None:
            _levels.remove(level)
            _logger.setLevel(min(_levels, default=_level_before))


def check_handler(handler: object) -> logging.Handler | None:
    """Return the handler, or raise if it cannot be one."""
    if handler is not None and not isinstance(handler, logging.Handler):
        raise TypeError(f"log_handler must be a logging.Handler, not {handler!r}")

    return handler


def check_level(level: object) -> int | None:
    """Return the level as a number, or raise if it cannot be one."""
    if isinstance(level, str):
        levels = logging.getLevelNamesMapping()
        if level not in levels:
            raise ValueError(f"log_level must be one of {', '.join(levels)}, not {level!r}")

        return levels[level]

    return None if level is None else check_count("log_level", level, least=0, or_else="its name")
