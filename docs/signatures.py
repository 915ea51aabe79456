"""
Has the reference show types by their names, each a link, instead of by all that they consist of.

Python knows a type alias by its value only. So, once the pages are about to be read, a class of the
same name takes the place of each alias, where annotations look it up.
"""

import re
import sys
from collections.abc import Iterator
from types import GenericAlias, ModuleType

from sphinx.application import Sphinx
from sphinx.util.inspect import signature

import anythrottle.integrations.aiohttp
import anythrottle.integrations.asgi
import anythrottle.integrations.headers
import anythrottle.integrations.httpx
import anythrottle.integrations.httpx2
import anythrottle.integrations.llm
import anythrottle.integrations.logs
import anythrottle.integrations.otel
import anythrottle.integrations.prometheus
import anythrottle.integrations.rich
import anythrottle.stores.memory
import anythrottle.stores.redis
import anythrottle.testing  # noqa: F401 # documented too

#: Type aliases, by the module that they are documented in: those of none are on the page of types.
ALIASES = {
    "Client": "",
    "ASGIApp": "",
    "ClientLimiter": "",
    "Concurrency": "",
    "Cost": "anythrottle",
    "CostOf": "",
    "Event": "anythrottle.abc",
    "Halt": "",
    "Job": "",
    "Observer": "anythrottle.abc",
    "MaxWait": "",
    "Receive": "",
    "RetryOn": "",
    "Watchable": "",
    "Scope": "",
    "Send": "",
    "ServerLimiter": "",
}


def modules() -> Iterator[ModuleType]:
    """Return all modules of the package that are imported."""
    return (
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "anythrottle"
    )


def stand_in(name: str, module: str) -> type:
    """Return a class that is shown as a type alias is called; what is a builtin, without module."""
    body = {"__module__": module or "builtins", "__class_getitem__": classmethod(GenericAlias)}
    return type(name, (), body)


def name_aliases(_: Sphinx) -> None:
    """Give type aliases their names, and classes the signature of what takes their arguments."""
    named = {name: stand_in(name, module) for name, module in ALIASES.items()}
    for module in modules():
        for name in named.keys() & vars(module).keys():
            if not isinstance(getattr(module, name), type):
                setattr(module, name, named[name])

    for module in modules():
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                show_arguments(value)


def show_arguments(class_: type) -> None:
    """Let a class be called as its ``__init__`` says, with annotations that are no texts."""
    init = vars(class_).get("__init__")
    if init and not getattr(class_, "_is_protocol", False):
        class_.__signature__ = signature(init, bound_method=True)


def hide_arguments(
    app: Sphinx, what: str, name: str, value: object, *_: object
) -> tuple[str, str] | None:
    """Show no arguments of a class that users don't make, or that documents none."""
    if what != "class" or re.search(r":(param|ivar) ", value.__doc__ or ""):
        return None

    app.env.current_document.autodoc_annotations.pop(name, None)
    return "", ""


def setup(app: Sphinx) -> None:
    """Come after what runs the library, and before pages are read."""
    app.connect("builder-inited", name_aliases, priority=900)
    app.connect("autodoc-process-signature", hide_arguments)
