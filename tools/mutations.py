"""Small changes of code: one at a time, drawn by a seed.

The same seed draws the same changes however the rest of the code is changed.
"""

import ast
import difflib
import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMPARED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
SUMS = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}


@dataclass(frozen=True)
class Mutant:
    """One change: `before` of a file becomes `after`; `start` and `end` are byte offsets."""

    file: str
    function: str
    start: int
    end: int
    before: str
    after: str
    line: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """An identity of the change that survives moves of the lines around it."""
        return self.file, self.function, self.line, f"{self.before} => {self.after}"

    def apply(self, source: str) -> str:
        """Return the source with the change."""
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()

    def diff(self, source: str) -> str:
        """Return the change as a unified diff."""
        lines = source.splitlines(), self.apply(source).splitlines()
        return "\n".join(difflib.unified_diff(*lines, self.file, self.file, n=2, lineterm=""))


def mutants_of(file: str, source: str) -> list[Mutant]:
    """Return every change of the functions in a file."""
    return list(_Finder(file, source).functions(ast.parse(source), ""))


class _Finder:
    """Finder of the changes in one file."""

    def __init__(self, file: str, source: str) -> None:
        self._file = file
        self._lines = source.splitlines(keepends=True)
        self._raw = source.encode()
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line.encode()))

    def functions(self, node: ast.AST, within: str) -> Iterator[Mutant]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                name = within + child.name
                for statement in child.body:
                    yield from self._all(statement, name)
                yield from self.functions(child, f"{name}.<locals>.")
            elif isinstance(child, ast.ClassDef):
                yield from self.functions(child, f"{within}{child.name}.")
            else:
                yield from self.functions(child, within)

    def _all(self, node: ast.AST, function: str) -> Iterator[Mutant]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assert):
            return
        for start, end, after in self._changes(node):
            before = self._raw[start:end].decode()
            number = self._raw.count(b"\n", 0, start)
            line = self._lines[number].strip()
            yield Mutant(self._file, function, start, end, before, after, line)
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        yield from self._all(child, function)

    def _changes(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        match node:
            case ast.Compare(left=left, ops=ops, comparators=right):
                for before, op, behind in zip([left, *right], ops, right, strict=False):
                    if (other := COMPARED.get(type(op))) is not None:
                        yield (*self._between(before, behind), f" {other} ")
            case ast.BoolOp(op=op, values=[first, second, *_]):
                other = " or " if isinstance(op, ast.And) else " and "
                yield (*self._between(first, second), other)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield (*self._span(node), f"bool({self._text(operand)})")
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                if not isinstance(test, ast.Compare | ast.UnaryOp):
                    yield (*self._span(test), f"(not ({self._text(test)}))")
            case ast.BinOp(left=left, op=op, right=behind):
                if (other := SUMS.get(type(op))) is not None:
                    yield (*self._between(left, behind), f" {other} ")
            case ast.AugAssign(target=target, op=ast.Add() | ast.Sub() as op, value=value):
                other = " -= " if isinstance(op, ast.Add) else " += "
                yield (*self._between(target, value), other)
            case ast.Constant(value=bool() as value):
                yield (*self._span(node), str(not value))
            case ast.Constant(value=int() as number):
                yield (*self._span(node), str(number + 1))
            case ast.Return(value=value) if value is not None and not _is_none(value):
                yield (*self._span(value), "None")
            case ast.Expr(value=ast.Call() | ast.Await() as call):
                # Logs are for the operator: tests check the parts that matter.
                if not self._text(call).startswith("_log."):
                    yield (*self._span(node), "pass")

    def _span(self, node: ast.AST) -> tuple[int, int]:
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = self._starts[node.lineno - 1] + node.col_offset
        return begin, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _between(self, before: ast.AST, behind: ast.AST) -> tuple[int, int]:
        """Return the place of an operator, without parentheses around its operands."""
        start, end = self._span(before)[1], self._span(behind)[0]
        text = self._raw[start:end]
        closing, opening = text.rfind(b")") + 1, text.rfind(b"(")
        return start + closing, end if opening < 0 else start + opening

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._raw[start:end].decode()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def drawn(package: Path, only: list[str], seed: int, count: int) -> list[Mutant]:
    """Return so many mutants of the files, drawn by a seed."""
    paths = only or [
        str(path.relative_to(package))
        for part in ("core", "agent")
        for path in sorted((package / part).rglob("*.py"))
    ]
    found = [m for path in paths for m in mutants_of(path, (package / path).read_text())]
    return heapq.nsmallest(count, found, key=lambda mutant: _lot(seed, mutant))


def _lot(seed: int, mutant: Mutant) -> bytes:
    """Return a sort key that is the same for the same change, however the other code changes."""
    return hashlib.sha256(f"{seed} {mutant.key}".encode()).digest()
