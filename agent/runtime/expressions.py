"""Expressions over a message: Python's syntax, a whitelist of its tree, and none of its reach.

    payload * 1.8 + 32          round(msg.payload.temp, 1)          "hot" if payload > 30 else "cold"

Names are the message's keys and `msg`; a dot reads a key. No calls but those of FUNCTIONS, no attributes of objects,
nothing that grows without bound: lengths, digits and exponents are capped.
"""

import ast
import math
import operator
import random
import time
from collections.abc import Callable
from typing import Any

MAX_LENGTH = 1000
MAX_TREE = 300
MAX_TEXT = 64 * 1024
MAX_BITS = 1024


class ExpressionError(ValueError):
    """The expression cannot be read, or not be evaluated over this message."""


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ExpressionError(f"{value!r:.50} is not a number")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ExpressionError("the number is too large")
    return value


def _numeric(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda left, right: _number(function(_number(left), _number(right)))


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        if len(left) + len(right) > MAX_TEXT:
            raise ExpressionError("the text is too long")
        return left + right
    return _number(_number(left) + _number(right))


def _power(base: Any, exponent: Any) -> Any:
    if abs(_number(exponent)) > 64:
        raise ExpressionError("the exponent is beyond 64")
    result = _number(base) ** exponent
    return _number(result)


def _text(value: Any) -> str:
    return str(_number(value)) if isinstance(value, int) and not isinstance(value, bool) else str(value)[:MAX_TEXT]


BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: _add,
    ast.Sub: _numeric(operator.sub),
    ast.Mult: _numeric(operator.mul),
    ast.Div: _numeric(operator.truediv),
    ast.FloorDiv: _numeric(operator.floordiv),
    ast.Mod: _numeric(operator.mod),
    ast.Pow: _power,
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: lambda value: -_number(value),
    ast.UAdd: _number,
    ast.Not: operator.not_,
}
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "bool": bool,
    "ceil": math.ceil,
    "cos": math.cos,
    "float": float,
    "floor": math.floor,
    "int": lambda value: _number(int(value)),
    "len": len,
    "lower": lambda value: _text(value).lower(),
    "max": max,
    "min": min,
    "now": time.time,
    "random": random.random,
    "round": lambda value, digits=0: round(_number(value), digits) if digits else round(_number(value)),
    "sin": math.sin,
    "sqrt": math.sqrt,
    "str": _text,
    "sum": lambda values: sum(_number(value) for value in values),
    "upper": lambda value: _text(value).upper(),
}
ALLOWED = (
    ast.Expression,
    ast.Constant,
    ast.Name,
    ast.Attribute,
    ast.Subscript,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.IfExp,
    ast.Call,
    ast.List,
    ast.Dict,
    ast.Load,
    ast.And,
    ast.Or,
    *BINARY,
    *UNARY,
    *COMPARE,
)


class Expression:
    """One expression, read once; raises ExpressionError when it is none or uses what is not allowed."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._body = _read(source).body

    def __call__(self, message: dict[str, Any]) -> Any:
        """Its value over `message`; raises ExpressionError."""
        try:
            return _value(self._body, message)
        except ExpressionError:
            raise
        except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise ExpressionError(f"{self.source!r:.100}: {error}") from error


def _read(source: str) -> ast.Expression:
    if not isinstance(source, str) or not source.strip() or len(source) > MAX_LENGTH:
        raise ExpressionError(f"an expression is a text of 1 to {MAX_LENGTH} characters")
    try:
        tree = ast.parse(source.strip(), mode="eval")
    # SystemError: what CPython 3.11 makes of nesting that is too deep for its own parser.
    except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError) as error:
        raise ExpressionError(f"{source!r:.100}: {error}") from error
    for count, node in enumerate(ast.walk(tree), start=1):
        if count > MAX_TREE:
            raise ExpressionError("the expression is too long")
        _check(node, source)
    return tree


def _check(node: ast.AST, source: str) -> None:
    allowed = isinstance(node, ALLOWED)
    if isinstance(node, ast.Call):
        allowed = isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS and not node.keywords
    elif isinstance(node, ast.Constant):
        allowed = node.value is None or isinstance(node.value, (bool, int, float, str))
    elif isinstance(node, ast.Dict):
        allowed = None not in node.keys
    if not allowed:
        raise ExpressionError(f"{source!r:.100}: {type(node).__name__} is not allowed here")


def _value(node: ast.expr, message: dict[str, Any]) -> Any:
    return EVALUATE[type(node)](node, message)


def _name(node: ast.Name, message: dict[str, Any]) -> Any:
    if node.id == "msg":
        return message
    if node.id not in message:
        raise ExpressionError(f"the message has no {node.id!r}")
    return message[node.id]


def _attribute(node: ast.Attribute, message: dict[str, Any]) -> Any:
    value = _value(node.value, message)
    return value.get(node.attr) if isinstance(value, dict) else None


def _subscript(node: ast.Subscript, message: dict[str, Any]) -> Any:
    value, key = _value(node.value, message), _value(node.slice, message)
    if not isinstance(value, (dict, list, str)):
        raise ExpressionError(f"{value!r:.50} has no parts")
    return value.get(key) if isinstance(value, dict) else value[key]


def _boolean(node: ast.BoolOp, message: dict[str, Any]) -> Any:
    stop_at = isinstance(node.op, ast.Or)
    value: Any = None
    for part in node.values:
        value = _value(part, message)
        if bool(value) is stop_at:
            return value
    return value


def _compare(node: ast.Compare, message: dict[str, Any]) -> bool:
    left = _value(node.left, message)
    for comparison, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, message)
        if not COMPARE[type(comparison)](left, right):
            return False
        left = right
    return True


def _call(node: ast.Call, message: dict[str, Any]) -> Any:
    assert isinstance(node.func, ast.Name)  # checked when the expression was read
    return FUNCTIONS[node.func.id](*(_value(argument, message) for argument in node.args))


def _dict(node: ast.Dict, message: dict[str, Any]) -> dict[Any, Any]:
    pairs = zip(node.keys, node.values, strict=True)
    return {_value(key, message): _value(value, message) for key, value in pairs if key is not None}


EVALUATE: dict[type[ast.expr], Callable[[Any, dict[str, Any]], Any]] = {
    ast.Constant: lambda node, message: node.value,
    ast.Name: _name,
    ast.Attribute: _attribute,
    ast.Subscript: _subscript,
    ast.BinOp: lambda node, message: BINARY[type(node.op)](_value(node.left, message), _value(node.right, message)),
    ast.UnaryOp: lambda node, message: UNARY[type(node.op)](_value(node.operand, message)),
    ast.BoolOp: _boolean,
    ast.Compare: _compare,
    ast.IfExp: lambda node, message: _value(node.body if _value(node.test, message) else node.orelse, message),
    ast.Call: _call,
    ast.List: lambda node, message: [_value(part, message) for part in node.elts],
    ast.Dict: _dict,
}
