"""The root: its names, their types, and what importing it imports."""

from __future__ import annotations

import ast
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
    """Return what a user sees of a module: no underscore, no submodule."""
    return {
        name
        for name in dir(module)
        if not name.startswith("_") and not inspect.ismodule(getattr(module, name))
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


class TestRoot:
    def test_each_name_comes_from_where_type_checkers_find_it(self) -> None:
        tree = ast.parse(inspect.getsource(anythrottle))
        (checked,) = [statement for statement in tree.body if isinstance(statement, ast.If)]
        assert ast.unparse(checked.test) == "TYPE_CHECKING"
        imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
        homes = {name.name: f".{node.module}" for node in imports for name in node.names}
        assert homes == vars(anythrottle)["_HOMES"]
        assert homes.keys() == {*anythrottle.__all__}

    def test_a_name_is_always_the_same_object(self) -> None:
        for name, home in vars(anythrottle)["_HOMES"].items():
            module = importlib.import_module(home, "anythrottle")
            assert getattr(anythrottle, name) is getattr(anythrottle, name) is vars(module)[name]

    def test_another_name(self) -> None:
        assert not hasattr(anythrottle, "_events_")
        with pytest.raises(AttributeError) as caught:
            getattr(anythrottle, "RateLimitr")  # noqa: B009 - it has none

        assert str(caught.value) == "module 'anythrottle' has no attribute 'RateLimitr'"
        assert caught.value.name == "RateLimitr"
        with pytest.raises(ImportError, match="cannot import name 'RateLimitr'"):
            exec("from anythrottle import RateLimitr")  # noqa: S102

    def test_dir_tells_all_before_it_is_imported(self) -> None:
        program = """if True:
            import anythrottle
            assert {*anythrottle.__all__, "__version__", "__file__"} <= {*dir(anythrottle)}
            names = {}
            exec("from anythrottle import *", names)
            assert {*anythrottle.__all__} == {*names} - {"__builtins__"}
            """
        subprocess.run([sys.executable, "-c", program], check=True)


class TestImport:
    @pytest.mark.parametrize(
        ("statement", "without"),
        [
            ("import anythrottle", ""),
            ("from anythrottle import RateLimiter", "_engine"),
            ("from anythrottle import *", "testing"),
        ],
    )
    def test_imports_no_more_than_is_used(self, statement: str, without: str) -> None:
        program = f"""if True:
            import asyncio, sys, anyio, anyio.lowlevel
            before = {{*sys.modules}}
            {statement}
            new = {{*sys.modules}} - before
            assert not [name for name in new if name.startswith("anythrottle.{without}")]
            seldom = {{"datetime", "decimal", "email", "fractions", "importlib.metadata"}}
            assert not seldom & new
            """
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_abc_need_not_be_imported_by_itself(self) -> None:
        program = "import anythrottle; assert anythrottle.abc.Limiter"
        subprocess.run([sys.executable, "-c", program], check=True)

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
