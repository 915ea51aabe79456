"""The root: its names, their types, and what importing it imports."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import logging
import pkgutil
import re
import subprocess
import sys
import types
import typing
from collections.abc import Iterator

import pytest

import anythrottle
import anythrottle.abc
import anythrottle.testing

PUBLIC_MODULES = [anythrottle, anythrottle.abc, anythrottle.testing]


def public_names(module: types.ModuleType) -> set[str]:
    """Return what a user sees of a module: no underscore, no submodule, nothing of others."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and not isinstance(value, getattr(typing, "_Feature", ()) or ())
    }


def own_functions(value: object) -> Iterator[tuple[str, types.FunctionType]]:
    """Return the functions of a public name that are ours: methods, inherited ones too."""
    if inspect.isfunction(value):
        yield value.__name__, value
    elif inspect.isclass(value):
        for owner in value.__mro__:
            if owner.__module__.startswith("anythrottle"):
                for name, member in vars(owner).items():
                    function = member.fget if isinstance(member, property) else member
                    if inspect.isfunction(function):
                        yield name, function


class TestAll:
    @pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
    def test_everything_in_all_is_there(self, module: types.ModuleType) -> None:
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert not missing

    @pytest.mark.parametrize("module", PUBLIC_MODULES[:1], ids=lambda module: module.__name__)
    def test_everything_that_is_there_is_in_all(self, module: types.ModuleType) -> None:
        assert public_names(module) == set(module.__all__)

    @pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
    def test_all_is_a_tuple_without_doubles_and_in_order(self, module: types.ModuleType) -> None:
        names = module.__all__
        assert isinstance(names, tuple)
        assert list(names) == sorted(set(names))

    def test_the_names_of_the_contract(self) -> None:
        assert {
            "Abandoned",
            "AnythrottleError",
            "Cost",
            "CostTooHigh",
            "Decision",
            "Failed",
            "Finished",
            "FixedWindow",
            "Granted",
            "JobInterrupted",
            "KeyedLimiter",
            "LimitExceeded",
            "Outcome",
            "Paused",
            "RateLimiter",
            "RateLimiterStatistics",
            "Refused",
            "Resumed",
            "SourceInterrupted",
            "Started",
            "ThrottleException",
            "Throttled",
            "Throttler",
            "ThrottlerStatistics",
            "TokenBucket",
            "WindowTokenBucket",
            "create_front_stream",
            "current_permit",
        } <= set(anythrottle.__all__)

    @pytest.mark.parametrize("name", anythrottle.__all__)
    def test_type_hints_can_be_resolved(self, name: str) -> None:
        value = getattr(anythrottle, name)
        if name == "Cost":
            assert typing.get_args(value)
            return

        typing.get_type_hints(value)
        for _, function in own_functions(value):
            typing.get_type_hints(function)

    @pytest.mark.parametrize("name", anythrottle.abc.__all__)
    def test_type_hints_of_abc_can_be_resolved(self, name: str) -> None:
        value = getattr(anythrottle.abc, name)
        if name in {"Event", "Observer"}:
            assert typing.get_args(value)
            return

        typing.get_type_hints(value)
        for _, function in own_functions(value):
            typing.get_type_hints(function)

    @pytest.mark.parametrize("name", anythrottle.__all__)
    def test_everything_public_has_a_docstring(self, name: str) -> None:
        value = getattr(anythrottle, name)
        if name != "Cost":
            assert inspect.getdoc(value)

        for what, function in own_functions(value):
            if not what.startswith("_"):
                assert inspect.getdoc(function), what

    @pytest.mark.parametrize("name", anythrottle.__all__)
    def test_every_parameter_and_field_is_documented(self, name: str) -> None:
        value = getattr(anythrottle, name)
        in_class = inspect.getdoc(value) or ""
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                assert documents(in_class, field.name), field.name

        for what, function in own_functions(value):
            # These two are made by create_front_stream().
            constructs = function is vars(value).get("__init__") and name not in {
                "FrontReceiveStream",
                "FrontSendStream",
            }
            if constructs or not what.startswith("_"):
                documentation = in_class if constructs else inspect.getdoc(function) or ""
                for parameter in {*inspect.signature(function).parameters} - {"self"}:
                    assert documents(documentation, parameter), (what, parameter)


def documents(text: str, name: str) -> bool:
    """Tell whether a field list has an entry for a parameter or field."""
    return re.search(rf"^:(param|ivar)( \w+)? {name}:", text, re.MULTILINE) is not None


class TestImport:
    @pytest.mark.parametrize("module", ["anythrottle", "anythrottle.abc", "anythrottle.testing"])
    def test_needs_no_trio(self, module: str) -> None:
        program = (
            f"import {module}, sys; assert not {{'trio', 'pytest', 'uvloop'}} & {{*sys.modules}}"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_works_without_trio(self) -> None:
        program = """if True:
            import sys
            sys.modules["trio"] = None
            import anyio, anythrottle
            limiter = anythrottle.RateLimiter("5/s", concurrency=1)
            async def main():
                async with limiter:
                    pass
            anyio.run(main)
            """
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_every_module_can_be_imported(self) -> None:
        for module in pkgutil.walk_packages(anythrottle.__path__, "anythrottle."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)

    def test_it_is_silent_where_nobody_logs(self) -> None:
        handlers = logging.getLogger("anythrottle").handlers
        assert [type(handler) for handler in handlers].count(logging.NullHandler) == 1
