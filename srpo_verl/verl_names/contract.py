"""Whether a verl still is what srpo_verl takes it to be, read from its source: nothing of it is imported.

A clause speaks of one definition and holds or does not; what does not hold is a sentence with the name, what was
expected of it, and what in srpo_verl depends on it.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# What is wrong with a definition, in the words after its name.
Check = Callable[[ast.AST], Iterator[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Clause:
    """`name` is `module:Class.method`, or a module; that it exists is the first thing that is checked."""

    name: str
    needed_by: str
    checks: tuple[Check, ...] = ()


def clause(name: str, needed_by: str, *checks: Check) -> Clause:
    return Clause(name, needed_by, checks)


def accepts(*parameters: str) -> Check:
    """A function that takes these parameters, and needs no other."""

    def check(node: ast.AST) -> Iterator[str]:
        if not isinstance(node, Function):
            yield "is no function"
            return
        arguments = node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        optional = {argument.arg for argument in positional[len(positional) - len(arguments.defaults) :]}
        optional |= {a.arg for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default}
        names = [argument.arg for argument in (*positional, *arguments.kwonlyargs)]
        for name in parameters:
            if name not in names and arguments.kwarg is None:
                yield f"has no parameter `{name}`"
        for name in names:
            if name not in optional and name not in (*parameters, "self", "cls"):
                yield f"asks for `{name}`"

    return check


def says(*fragments: str) -> Check:
    """A definition in whose source each fragment stands, as `ast.unparse` writes it."""

    def check(node: ast.AST) -> Iterator[str]:
        text = _text(node)
        for fragment in fragments:
            if fragment not in text:
                yield f"no longer says `{fragment}`"

    return check


def calls_only(*functions: str) -> Check:
    """A function that is repeated here: it calls these, and nothing else."""

    def check(node: ast.AST) -> Iterator[str]:
        found = {_text(inner.func) for inner in ast.walk(node) if isinstance(inner, ast.Call)}
        if new := found - set(functions):
            yield f"also calls {', '.join(sorted(new))}"
        if gone := set(functions) - found:
            yield f"no longer calls {', '.join(sorted(gone))}"

    return check


def compares_only(attribute: str, *comparisons: str) -> Check:
    """A class that compares an attribute in these places (`method: comparison`), and in no other."""

    def check(node: ast.AST) -> Iterator[str]:
        found = {
            f"{function.name}: {_text(inner)}"
            for function in ast.walk(node)
            if isinstance(function, Function)
            for inner in ast.walk(function)
            if isinstance(inner, ast.Compare)
            if any(isinstance(part, ast.Attribute) and part.attr == attribute for part in ast.walk(inner))
        }
        if new := found - set(comparisons):
            yield f"also asks, in {'; in '.join(sorted(new))}"
        if gone := set(comparisons) - found:
            yield f"no longer asks, in {'; in '.join(sorted(gone))}"

    return check


def problems(item: Clause, sources: Sources) -> Iterator[str]:
    """What of the clause does not hold. On a package that is not installed, except verl, it does."""
    module, _, name = item.name.partition(":")
    package = module.partition(".")[0]
    if sources.folder(package) is None:
        if package == "verl":
            yield "is not installed"
        return
    tree = sources.module(module)
    node = find(tree, name) if tree is not None else None
    if node is None:
        yield "is not there"
        return
    for check in item.checks:
        yield from check(node)


class Sources:
    """Syntax trees of installed modules, each read once."""

    def __init__(self, verl: Path | None = None):
        self._folders: dict[str, Path | None] = {} if verl is None else {"verl": Path(verl)}
        self._trees: dict[str, ast.Module | None] = {}

    def folder(self, package: str) -> Path | None:
        """Where a top-level package lies, None if it is not installed."""
        if package not in self._folders:
            spec = importlib.util.find_spec(package)
            found = spec.submodule_search_locations if spec is not None else None
            self._folders[package] = Path(next(iter(found))) if found else None
        return self._folders[package]

    def module(self, name: str) -> ast.Module | None:
        """None if the module has no source there."""
        if name not in self._trees:
            package, *parts = name.split(".")
            folder = self.folder(package)
            assert folder is not None
            path = folder.joinpath(*parts)
            files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
            self._trees[name] = ast.parse(files[0].read_text(encoding="utf-8")) if files else None
        return self._trees[name]


def find(tree: ast.Module, name: str) -> ast.AST | None:
    """The definition of `Class.method`, `function` or `CONSTANT`, of the class or of its bases in the same module."""
    node: ast.AST = tree
    for part in name.split(".") if name else ():
        inner: ast.AST | None = next((found for found in _statements(node) if part in _defines(found)), None)
        if inner is None and isinstance(node, ast.ClassDef):
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            inner = next((found for base in bases if (found := find(tree, f"{base}.{part}"))), None)
        if inner is None:
            return None
        node = inner
    return node


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Those of a body, and of the branches in it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
            if isinstance(child, ast.If | ast.Try | ast.With):
                yield from _statements(child)


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | Function):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


@functools.cache
def _text(node: ast.AST) -> str:
    return ast.unparse(node)
