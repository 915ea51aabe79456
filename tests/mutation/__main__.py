"""Mutation tests: ``python -m tests.mutation`` makes small faults, and sees if a test fails."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from .mutants import Mutant, all_mutants, sample
from .trials import (
    BROKEN,
    SURVIVED,
    Record,
    Transplant,
    collect,
    fork,
    in_parallel,
    run_imported_anew,
    run_recorded,
    run_until_killed,
)

#: The share of the mutants that must be noticed, those apart that are known to change nothing.
AIM = 0.95

EQUIVALENTS = Path(__file__).with_name("equivalents.toml")


def main() -> int:
    """Try the mutants, and tell which of them no test has noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the sample (%(default)s)")
    parser.add_argument("--count", type=int, default=1000, help="of mutants (%(default)s)")
    parser.add_argument("--only", metavar="TEXT", help="try all whose names have this in them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()

    start = time.monotonic()
    if options.only:
        mutants = [each for each in all_mutants() if options.only in each.name]
    else:
        mutants = sample(options.seed, options.count)

    print(f"{len(mutants)} mutants", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        survivors = Trials(mutants, options.processes, Path(folder)).run()

    print(f"{(time.monotonic() - start) / 60:.0f} minutes")
    return report(mutants, survivors)


class Trials:
    """
    Tries mutants, all that is ours being imported in other processes only.

    :param mutants: the mutants
    :param processes: how many at a time
    :param folder: for what the processes leave to one another

    """

    def __init__(self, mutants: Sequence[Mutant], processes: int, folder: Path) -> None:
        self._mutants = mutants
        self._processes = processes
        self._folder = folder
        self._outcomes = folder / "outcomes"
        self._record = Record()

    def run(self) -> list[Mutant]:
        """Return those that no test has noticed."""
        self._in_collected(self._measure)
        for file in self._folder.glob("*.json"):
            self._record.load(file)

        seconds = self._record.seconds
        print(f"{len(seconds)} tests take {sum(seconds.values()):.0f} s", flush=True)
        self._in_collected(self._transplant)
        anew = [each for each in self._mutants if self._status()[each.name] == BROKEN]
        print(f"{len(anew)} mutants are no functions", flush=True)
        self._try_all(
            anew,
            lambda mutant: run_imported_anew(
                mutant, self._record.tests_for(mutant, whole_module=True), self._record
            ),
        )
        status = self._status()
        return [each for each in self._mutants if status[each.name] == SURVIVED]

    def _in_collected(self, work: Callable[[dict[str, pytest.Item]], None]) -> None:
        process = fork(lambda: int(collect(work)), silent=False)
        _, status = os.waitpid(process, 0)
        if status:
            sys.exit("pytest could not collect the tests")

    def _measure(self, items: dict[str, pytest.Item]) -> None:
        # In turns: tests of one file take about the same time.
        shares = [[*items.values()][first :: self._processes] for first in range(self._processes)]
        works = [
            partial(run_recorded, share, self._folder / f"record{number}")
            for number, share in enumerate(shares)
        ]
        in_parallel(works, self._processes, lambda *_: None)
        for file in self._folder.glob("*.failed"):
            print(f"it fails without any mutant: {file.read_text()}", flush=True)
            os._exit(BROKEN)

    def _transplant(self, items: dict[str, pytest.Item]) -> None:
        functions = Transplant()

        def try_one(mutant: Mutant) -> int:
            change = mutant.changed_function()
            if change is None or not functions.apply(*change):
                return BROKEN

            tests = self._record.tests_for(mutant, whole_module=False)
            return run_until_killed([items[test] for test in tests], self._record.seconds)

        self._try_all(self._mutants, try_one)

    def _try_all(self, mutants: Sequence[Mutant], try_one: Callable[[Mutant], int]) -> None:
        def done(number: int, status: int) -> None:
            with self._outcomes.open("a") as file:
                file.write(f"{mutants[number].name} {status}\n")

            if status == SURVIVED:
                print(f"survived: {mutants[number].name}", flush=True)

        in_parallel([partial(try_one, each) for each in mutants], self._processes, done)

    def _status(self) -> dict[str, int]:
        lines = [line.split() for line in self._outcomes.read_text().splitlines()]
        return {name: int(status) for name, status in lines}


def report(mutants: Sequence[Mutant], survivors: Sequence[Mutant]) -> int:
    """Show the survivors that are not known to be equivalent, and return the exit status."""
    known = {
        (each["file"], each["was"], each["now"])
        for each in tomllib.loads(EQUIVALENTS.read_text())["equivalent"]
    }
    unknown = [each for each in survivors if (each.path, *each.change()) not in known]
    for mutant in unknown:
        was, now = mutant.change()
        print(f"\n{mutant.name}\n- {was}\n+ {now}")

    count = len(mutants) - len(survivors) + len(unknown)
    share = 1 - len(unknown) / max(count, 1)
    print(f"\n{len(mutants)} mutants, {len(survivors) - len(unknown)} of them equivalent")
    print(f"{count - len(unknown)} of {count} are killed: {share:.1%}")
    return 0 if share >= AIM else 1


if __name__ == "__main__":
    sys.exit(main())
