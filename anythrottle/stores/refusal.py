"""What callers are told when an exchange has failed."""

from __future__ import annotations

from .._errors import StoreError


def refusal_of(name: str, error: Exception) -> StoreError:
    """Return the error for a limiter's caller, from what its server, or the way to it, raised."""
    if isinstance(error, StoreError):
        # A new one for each caller: an error that is raised twice gathers tracebacks.
        refusal = type(error)(name, *error.args[1:])
        refusal.__cause__ = error.__cause__
    else:
        refusal = StoreError(name, str(error) or type(error).__name__)
        refusal.__cause__ = error

    return refusal


def silence(seconds: float) -> TimeoutError:
    """Return the error that stands for no answer."""
    return TimeoutError(
        f"no answer within {seconds:g} s; see that the server runs and is not overloaded"
    )
