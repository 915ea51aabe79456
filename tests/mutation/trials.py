"""
How a mutant is tried: in a forked copy of a process that has all tests collected.

There, the mutant's function gets the mutated code, and the tests that run the changed lines are
run, the quick ones first, until one of them fails. A mutant of anything else than a function needs
modules imported anew, and a process forked before any of ours was imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import coverage
import pytest

from .mutants import ROOT, Mutant

#: With which share of the tests one mutant is tried at most, by the time that they have taken: the
#: same on a slow machine as on a fast one.
PATIENCE = 0.25
#: After which multiple of its usual time a test counts as hanging; and seconds on top.
HANGS = (10, 10.0)
#: Bytes that a process may have: a mutant may fill a list for ever.
MEMORY = 3 << 30

SURVIVED, KILLED, BROKEN = 0, 1, 2

PYTEST = [
    *("-q", "-s", "--import-mode=importlib", "--hypothesis-seed=0"),
    *("-p", "no:xdist", "-p", "no:cacheprovider"),
    # who hangs is ended by another alarm
    *("-o", "faulthandler_timeout=0"),
    *("--deselect", "tests/benchmarks", "--deselect", "tests/examples"),
    # servers outlive a fork, and are slow to tell what pure tests tell at once
    *("-m", "not servers"),
]


class Record:
    """How long each test takes, and which of them run a line; found by running them all once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._tests: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))

    def load(self, file: Path) -> None:
        """Add what one process has found."""
        self.seconds |= json.loads(file.with_suffix(".json").read_text())
        data = coverage.CoverageData(str(file.with_suffix(".coverage")))
        data.read()
        for path in data.measured_files():
            tests = self._tests[Path(path).relative_to(ROOT).as_posix()]
            for line, names in data.contexts_by_lineno(path).items():
                tests[line].update(name for name in names if name)

    def tests_for(self, mutant: Mutant, *, whole_module: bool) -> list[str]:
        """Return the tests that may notice the mutant, those first that soon will."""
        lines = self._tests[mutant.path]
        changed = lines if whole_module else range(mutant.first, mutant.last + 1)
        found = {test for line in changed for test in lines.get(line, ())}
        variants: dict[str, int] = defaultdict(int)
        order = []
        for test in sorted(found, key=lambda test: (self.seconds[test], test)):
            function = test.partition("[")[0]
            order.append((variants[function], test))
            variants[function] += 1

        left = PATIENCE * sum(self.seconds.values())
        chosen = []
        # One variant of each test before a second one of any.
        for _, test in sorted(order, key=lambda each: each[0]):
            if left > 0:
                chosen.append(test)
                left -= self.seconds[test]

        return chosen


def fork(work: Callable[[], int], *, silent: bool = True) -> int:
    """Do something in a process of its own, in a process group of its own."""
    sys.stdout.flush()
    if (process := os.fork()) != 0:
        return process

    status = BROKEN
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        if silent:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(nowhere, descriptor)

        status = work()
    finally:
        os._exit(status)


def in_parallel(
    works: Iterable[Callable[[], int]], processes: int, done: Callable[[int, int], None]
) -> None:
    """
    Do each in a process of its own, so many at a time.

    :param done: is called with the number of each, from 0, and its exit status

    """
    waiting = enumerate(works)
    running: dict[int, int] = {}
    while True:
        while len(running) < processes and (job := next(waiting, None)) is not None:
            running[fork(job[1])] = job[0]

        if not running:
            return

        process, status = os.waitpid(-1, 0)
        if process in running:
            # What the tests have started ends with them.
            kill_group(process)
            done(running.pop(process), os.waitstatus_to_exitcode(status))


def kill_group(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


class InCollected:
    """A plugin for pytest that does something else than running all tests, once it has them."""

    def __init__(self, work: Callable[[dict[str, pytest.Item]], None]) -> None:
        self._work = work

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        session.config.option.maxfail = 1
        self._work({item.nodeid: item for item in session.items})
        return True


def collect(work: Callable[[dict[str, pytest.Item]], None]) -> int:
    """Call something with all tests, by their ids; return pytest's exit status."""
    return pytest.main([*PYTEST, "tests"], plugins=[InCollected(work)])


def run_recorded(items: Sequence[pytest.Item], file: Path) -> int:
    """Run tests with nothing changed, and leave in a file what a :class:`Record` is made of."""
    measured = coverage.Coverage(
        data_file=str(file.with_suffix(".coverage")),
        config_file=False,
        include=[str(ROOT / "anythrottle" / "*")],
    )
    seconds = {}
    measured.start()
    for item, following in zip(items, [*items[1:], None], strict=True):
        measured.switch_context(item.nodeid)
        start = time.perf_counter()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        seconds[item.nodeid] = time.perf_counter() - start
        if item.session.testsfailed:
            file.with_suffix(".failed").write_text(item.nodeid)
            return BROKEN

    measured.stop()
    measured.save()
    file.with_suffix(".json").write_text(json.dumps(seconds))
    return SURVIVED


def run_until_killed(items: Sequence[pytest.Item], seconds: dict[str, float]) -> int:
    """Run tests until one fails; one that hangs ends the process."""
    times, more = HANGS
    for item, following in zip(items, [*items[1:], None], strict=True):
        signal.setitimer(signal.ITIMER_REAL, seconds[item.nodeid] * times + more)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            return KILLED

    return SURVIVED


class Transplant:
    """Gives functions that have been imported the code of mutants."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "anythrottle":
                for function in _functions_in(module):
                    self._functions[_key(function.__code__)].append(function)

    def apply(self, before: CodeType, after: CodeType) -> bool:
        """Tell whether there are such functions."""
        functions = self._functions[_key(before)]
        for function in functions:
            # types.coroutine() has set another flag.
            flags = function.__code__.co_flags | after.co_flags
            function.__code__ = after.replace(co_flags=flags)

        return bool(functions)


def _key(code: CodeType) -> tuple[str, str, int]:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _functions_in(owner: object) -> Iterator[FunctionType]:
    for value in list(vars(owner).values()):
        if isinstance(value, type):
            if isinstance(owner, ModuleType) and value.__module__ == owner.__name__:
                yield from _functions_in(value)

            continue

        accessors = (value.fget, value.fset) if isinstance(value, property) else (value,)
        for each in accessors:
            function = getattr(each, "__func__", each)
            while function is not None:
                if isinstance(function, FunctionType):
                    yield function

                function = getattr(function, "__wrapped__", None)


class MutantFinder:
    """Lets one module be imported as a mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self._name = mutant.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self._loader = _MutantLoader(self._name, str(ROOT / mutant.path))
        self._loader.mutated = mutant.source().encode()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self._name:
            return None

        return importlib.util.spec_from_file_location(name, loader=self._loader)


class _MutantLoader(SourceFileLoader):
    mutated: bytes

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.mutated, self.path)


def run_imported_anew(mutant: Mutant, tests: Sequence[str], record: Record) -> int:
    """Import all of ours, with the mutant in it, and run tests until one fails."""
    sys.meta_path.insert(0, MutantFinder(mutant))
    status = [KILLED]

    def work(items: dict[str, pytest.Item]) -> None:
        known = [items[test] for test in tests if test in items]
        status[0] = run_until_killed(known, record.seconds)

    signal.setitimer(signal.ITIMER_REAL, 100)
    collect(work)
    return status[0]
