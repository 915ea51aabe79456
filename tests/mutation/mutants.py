"""Which mutants there are: what Cosmic Ray's operators make of our modules; and a sample."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from types import CodeType
from typing import Any

import parso.tree
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[2]
PACKAGES = ("_policies", "_limiters", "_engine")

#: Operators whose mutants say nothing about the tests.
_LEFT_OUT = {
    # want to be told what to insert
    "core/VariableInserter",
    "core/VariableReplacer",
    # what is identical is equal; which equal values are identical is the interpreter's affair
    "core/ReplaceComparisonOperator_Is_Eq",
    "core/ReplaceComparisonOperator_IsNot_NotEq",
    "core/ReplaceComparisonOperator_Eq_Is",
    "core/ReplaceComparisonOperator_NotEq_IsNot",
    # most are for type checkers, and nothing works without the others
    "core/RemoveDecorator",
}


@dataclass(frozen=True, order=True)
class Mutant:
    """
    A module with one small fault.

    :ivar path: the module, from the project's root on
    :ivar operator: the name of the operator of Cosmic Ray's
    :ivar occurrence: which of the places it is where the operator fits in the module
    :ivar first: the first line of the statement that it changes, from 1
    :ivar last: the last one
    :ivar home: the module and function that it is in, the operator, and which of the places in that
        function: it stays the same while other functions are changed

    """

    path: str
    operator: str
    occurrence: int
    first: int
    last: int
    home: str = ""

    @property
    def name(self) -> str:
        return f"{self.path}:{self.first}:{self.operator.removeprefix('core/')}:{self.occurrence}"

    def source(self) -> str:
        """Return the module with the fault."""
        mutated = mutate_code(source_of(self.path), _operator(self.operator), self.occurrence)
        assert isinstance(mutated, str)
        return mutated

    def change(self) -> tuple[str, str]:
        """Return the line that is changed, as it was and as it is."""
        before, after = source_of(self.path).splitlines(), self.source().splitlines()
        for old, new in zip(before, after, strict=False):
            if old != new:
                return old.strip(), new.strip()

        raise AssertionError(f"{self.name} changes nothing")

    def changed_function(self) -> tuple[CodeType, CodeType] | None:
        """
        Return the code of the function that is changed, before and after.

        ``None`` if it is something else: a default, a decorator, the body of a class or a module.
        """
        path = str(ROOT / self.path)
        before = compile(source_of(self.path), path, "exec", dont_inherit=True)
        after = compile(self.source(), path, "exec", dont_inherit=True)
        return _difference(before, after)


@cache
def source_of(path: str) -> str:
    return (ROOT / path).read_text()


@cache
def _operator(name: str) -> Any:
    return get_operator(name)()


def sample(seed: int, count: int) -> list[Mutant]:
    """
    Return so many of all mutants that are Python, always the same of the same source.

    Where a function is changed, only some of its own mutants come and go: so what is known of the
    survivors holds on.
    """
    mutants = sorted(all_mutants(), key=lambda each: random.Random(f"{seed} {each.home}").random())
    return sorted(islice(filter(_compiles, mutants), count))


def _compiles(mutant: Mutant) -> bool:
    try:
        compile(mutant.source(), mutant.path, "exec", dont_inherit=True)
    except SyntaxError:
        # Cosmic Ray takes the asterisk of keyword-only parameters for a multiplication.
        return False

    return True


def all_mutants() -> Iterator[Mutant]:
    for package in PACKAGES:
        for file in sorted((ROOT / "anythrottle" / package).glob("*.py")):
            yield from _mutants_of(file.relative_to(ROOT).as_posix())


def _mutants_of(path: str) -> Iterator[Mutant]:
    nodes = list(ast_nodes(get_ast(source_of(path))))
    for name in sorted(set(operator_names()) - _LEFT_OUT):
        operator = _operator(name)
        occurrence = -1
        counts: Counter[str] = Counter()
        for node in nodes:
            for _ in operator.mutation_positions(node):
                occurrence += 1
                if not _is_for_types(node):
                    statement = _statement_of(node)
                    first, last = statement.start_pos[0], statement.end_pos[0]
                    home = f"{path} {_function_of(node)} {name}"
                    counts[home] += 1
                    yield Mutant(path, name, occurrence, first, last, f"{home} {counts[home]}")


def _is_for_types(node: parso.tree.NodeOrLeaf) -> bool:
    """Tell whether a node is in an annotation, which nobody evaluates, or says how to call."""
    while (parent := node.parent) is not None:
        if parent.type in {"parameters", "error_node"}:
            # An asterisk among parameters; or "*args: *Ts", which parso does not know yet.
            return True

        after = {"annassign": ":", "tfpdef": ":", "funcdef": "->"}.get(parent.type)
        if after is not None and _text(node.get_previous_sibling()) == after:
            # A variable's value comes after its annotation, and a function's body after a colon.
            return True

        node = parent

    return False


def _function_of(node: parso.tree.NodeOrLeaf) -> str:
    """Return the names of the classes and functions that a node is in, the innermost first."""
    names = []
    while (parent := node.parent) is not None:
        if parent.type in {"classdef", "funcdef"}:
            names.append(_text(parent.children[1]))

        node = parent

    return " ".join(names)


def _text(node: parso.tree.NodeOrLeaf | None) -> str:
    return "" if node is None else node.get_code(include_prefix=False)


def _statement_of(node: parso.tree.NodeOrLeaf) -> parso.tree.NodeOrLeaf:
    """Return the smallest part around a node that has lines of its own."""
    while (parent := node.parent) is not None:
        compound = parent.type.endswith("_stmt") and parent.type not in {"expr_stmt", "return_stmt"}
        if compound or parent.type in {"suite", "file_input", "simple_stmt", "funcdef", "classdef"}:
            break

        node = parent

    return node


def _difference(before: CodeType, after: CodeType) -> tuple[CodeType, CodeType] | None:
    """Find the function that differs; its own functions and comprehensions belong to it."""
    if _shell(before) != _shell(after):
        return None

    pairs = zip(_parts(before), _parts(after), strict=True)
    differing = [(one, other) for one, other in pairs if one != other]
    if len(differing) != 1:
        return None

    one, other = differing[0]
    # A class's body is run where it stands, with names of its own.
    is_class = "__qualname__" in one.co_names and "__module__" in one.co_names
    return _difference(one, other) if is_class else (one, other)


def _shell(code: CodeType) -> object:
    """Return what a body does itself, but for the code of its functions and classes."""
    constants = [None if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return code.co_code, constants, code.co_names, code.co_varnames


def _parts(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]
