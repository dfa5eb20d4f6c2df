"""A configuration file of insightface's arcface_torch, read by its syntax and never executed."""

import ast
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcdist.errors import DataError

_MOST_BYTES = 1_000_000
_LARGEST = 2**63
_SHOWN = 5
_LONGEST = 60

# configs/base.py: what a file that does not say otherwise has. Its keys of Weights & Biases are not repeated here.
BASE = {
    "margin_list": [1.0, 0.5, 0.0],
    "network": "r50",
    "resume": False,
    "save_all_states": False,
    "output": "ms1mv3_arcface_r50",
    "embedding_size": 512,
    "sample_rate": 1,
    "interclass_filtering_threshold": 0,
    "fp16": False,
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "verbose": 2000,
    "frequent": 10,
    "dali": False,
    "dali_aug": False,
    "gradient_acc": 1,
    "seed": 2048,
    "num_workers": 2,
}
_DROPS = "0.1 ** len([m for m in [] if m - 1 <= epoch])"  # of the learning rate, as files of before 2022 write it


@dataclass(frozen=True)
class Setting:
    """A value of the configuration, and the line that sets it; 0 is base.py's own."""

    value: Any
    line: int = 0


@dataclass(frozen=True)
class Drops:
    """What a file's ``lr_step_func`` does: a tenth of the learning rate from each of these epochs on."""

    epochs: list[float]


class _NotLiteralError(Exception):
    """An expression whose value only running it would tell."""

    def __init__(self, node: ast.AST) -> None:
        super().__init__()
        self.node = node


def read_settings(path: str | Path) -> dict[str, Setting]:
    """Return what a file and base.py set, by key.

    Taken are ``config.KEY = VALUE`` with numbers, strings, lists, and arithmetic of numbers and of keys set before.

    Errors: DataError for a file that cannot be read, is no Python, sets nothing of a ``config``, or holds what
        only running it would tell; every such line is named.
    """
    text = _text(Path(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of strings with an odd escape
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deep or holds what Python refuses"
        raise DataError(f"{path}: {line}is no Python: {reason}") from None
    reader = _Reader()
    for statement in tree.body:
        reader.read(statement)
    if reader.faults:
        shown = "; ".join(reader.faults[:_SHOWN])
        more = f"; and {len(reader.faults) - _SHOWN} more" if len(reader.faults) > _SHOWN else ""
        raise DataError(f"{path}: {shown}{more}: not a literal, and nothing is executed; write the value in its place")
    if not reader.settings:
        raise DataError(f"{path}: sets no config.KEY = VALUE, so it is no configuration of arcface_torch")
    return {key: Setting(value) for key, value in BASE.items()} | reader.settings


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path}: has over {_MOST_BYTES:,} bytes, so it is no configuration of arcface_torch")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not text, so it is no configuration of arcface_torch") from None


class _Reader:
    def __init__(self) -> None:
        self.settings: dict[str, Setting] = {}
        self.faults: list[str] = []
        self.names: dict[str, Any] = {}  # plain variables of the file, and its functions

    def read(self, statement: ast.stmt) -> None:
        """Take what a statement of the file's top level says."""
        try:
            match statement:
                case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
                    return
                case ast.FunctionDef(name=name):
                    self.names[name] = _drops(statement)
                case ast.Assign(targets=[ast.Name(id="config")], value=ast.Call(args=[], keywords=[])):
                    return  # edict()
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if name != "config":
                    self.names[name] = self._value(value)
                case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="config"), attr=key)], value=value):
                    self.settings[key] = Setting(self._value(value), statement.lineno)
                case _:
                    raise _NotLiteralError(statement)
        except _NotLiteralError as fault:
            self.faults.append(f"line {getattr(fault.node, 'lineno', statement.lineno)}: {_shown(fault.node)}")
        except RecursionError:
            self.faults.append(f"line {statement.lineno}: an expression that is nested too deep")

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                if isinstance(value, int) and abs(value) >= _LARGEST:
                    raise _NotLiteralError(node)
                return value
            case ast.Tuple(elts=items) | ast.List(elts=items):
                return [self._value(item) for item in items]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
                value = self._number(operand)
                return -value if isinstance(sign, ast.USub) else value
            case ast.BinOp(left=left, op=operator, right=right):
                return _computed(node, operator, self._number(left), self._number(right))
            case ast.Name(id=name) if name in self.names:
                return self.names[name]
            case ast.Attribute(value=ast.Name(id="config"), attr=key) if key in self.settings or key in BASE:
                return self.settings[key].value if key in self.settings else BASE[key]
            case _:
                raise _NotLiteralError(node)

    def _number(self, node: ast.expr) -> float:
        value = self._value(node)
        if not isinstance(value, int | float):
            raise _NotLiteralError(node)
        return value


def _shown(node: ast.AST) -> str:
    try:
        source = " ".join(ast.unparse(node).split())
    except RecursionError:
        return "an expression that is nested too deep"
    return source if len(source) <= _LONGEST else f"{source[:_LONGEST]}…"


def _computed(node: ast.expr, operator: ast.operator, left: float, right: float) -> float:
    """Return the result of an operation; none of those allowed can make much of little."""
    try:
        match operator:
            case ast.Add():
                result = left + right
            case ast.Sub():
                result = left - right
            case ast.Mult():
                result = left * right
            case ast.Div():
                result = left / right
            case ast.FloorDiv():
                result = left // right
            case _:
                raise _NotLiteralError(node)
    except ArithmeticError:
        raise _NotLiteralError(node) from None
    if not abs(result) < _LARGEST:
        raise _NotLiteralError(node)
    return result


def _drops(function: ast.FunctionDef) -> Drops:
    """Return the epochs of ``lr_step_func(epoch)``, the one function that arcface_torch's files hold."""
    lists = [node for node in ast.walk(function) if isinstance(node, ast.ListComp)]
    source = lists[0].generators[0].iter if lists else None
    body = function.body[0]
    if isinstance(source, ast.List) and isinstance(body, ast.Return) and isinstance(body.value, ast.IfExp):
        epochs = [_Reader()._value(item) for item in source.elts]
        source.elts = []
        as_known = ast.dump(body.value.orelse) == ast.dump(ast.parse(_DROPS, mode="eval").body)
        if as_known and all(isinstance(epoch, int | float) for epoch in epochs):
            return Drops([epoch - 1 for epoch in epochs])
    raise _NotLiteralError(function)
