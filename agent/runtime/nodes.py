"""The node types of the runtime. A new one is a class here and an entry in TYPES."""

import asyncio
import operator
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from agent.protocol import encode
from agent.runtime import paths
from agent.runtime.definition import FlowError, NodeSpec
from agent.runtime.expressions import Expression, ExpressionError

Message = dict[str, Any]
Outputs = list[tuple[int, Message]]

MIN_INTERVAL = 0.01
MAX_DELAY = 7 * 24 * 3600.0


class Wiring(Protocol):
    """What a node may ask of the engine that runs it."""

    def inject(self, node_id: str, message: Message) -> None:
        """Start an execution with `message` leaving `node_id`."""

    def debug(self, node: NodeSpec, value: Any) -> None:
        """Show a value to whoever looks at the flow."""

    def failed(self, node: NodeSpec, error: Exception) -> None:
        """Say that a node could not do its work."""


class Node:
    """A node: configured in __init__ (raises FlowError), then started, given messages, stopped."""

    category: ClassVar[str] = "function"
    description: ClassVar[str] = ""
    inputs: ClassVar[int] = 1
    outputs: ClassVar[int] = 1

    def __init__(self, spec: NodeSpec, wiring: Wiring) -> None:
        self.spec, self.wiring = spec, wiring
        self.configure(spec.config)

    def configure(self, config: dict[str, Any]) -> None:
        """Read the configuration; raises FlowError."""

    async def start(self) -> None:
        """Begin to work; raising fails the start of the flow."""

    async def stop(self) -> None:
        """End all work of its own."""

    def delay(self) -> float:
        """Seconds that a message waits before `receive`."""
        return 0.0

    def receive(self, message: Message) -> Outputs:
        """Deal with one message: what leaves, and by which output."""
        return [(0, message)]

    def wrong(self, key: str, text: str) -> FlowError:
        """The error of a configuration value."""
        return FlowError(f"node {self.spec.id}, config.{key}", text)

    def expression(self, source: Any, key: str) -> Expression:
        """An expression of the configuration."""
        try:
            return Expression(source)
        except ExpressionError as error:
            raise self.wrong(key, str(error)) from error

    def seconds(self, config: dict[str, Any], key: str, low: float, default: float | None = None) -> float | None:
        """A duration of the configuration, in seconds."""
        value = config.get(key, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= MAX_DELAY:
            raise self.wrong(key, f"must be seconds from {low:g} to {MAX_DELAY:g}")
        return float(value)


class Inject(Node):
    """Starts messages: once after the start, every `interval` seconds, or both."""

    category, inputs = "input", 0
    description = "Sends a message at the start and/or every `interval` seconds: payload, expression, topic."

    def configure(self, config: dict[str, Any]) -> None:
        self._interval = self.seconds(config, "interval", MIN_INTERVAL)
        self._once = bool(config.get("once", self._interval is None))
        self._after = self.seconds(config, "delay", 0.0, 0.1) or 0.0
        source = config.get("expression")
        self._expression = None if source is None else self.expression(source, "expression")
        self._count = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        # Made once before anything runs, so that an expression that never works fails the start.
        self._message(0)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _message(self, count: int) -> Message:
        message = {"payload": self.spec.config.get("payload"), "topic": self.spec.config.get("topic", "")}
        if self._expression:
            message["payload"] = self._expression({**message, "count": count})
        return message

    def _fire(self) -> None:
        self._count += 1
        try:
            self.wiring.inject(self.spec.id, self._message(self._count))
        except ExpressionError as error:
            self.wiring.failed(self.spec, error)

    async def _run(self) -> None:
        if self._once:
            await asyncio.sleep(self._after)
            self._fire()
        while self._interval:
            await asyncio.sleep(self._interval)
            self._fire()


class Function(Node):
    """Computes: `expression` becomes the payload, `set` maps paths to expressions."""

    description = "Evaluates a safe expression over the message: `expression` sets msg.payload, `set` any paths."

    def configure(self, config: dict[str, Any]) -> None:
        wanted = config.get("set", {})
        if not isinstance(wanted, dict):
            raise self.wrong("set", "must be an object of path: expression")
        self._set = [(path, self.expression(source, f"set.{path}")) for path, source in wanted.items()]
        if config.get("expression") is not None:
            self._set.append(("payload", self.expression(config["expression"], "expression")))
        if not self._set:
            raise self.wrong("expression", "is missing")

    def receive(self, message: Message) -> Outputs:
        for path, expression in self._set:
            paths.put(message, path, expression(message))
        return [(0, message)]


class Change(Node):
    """Sets, renames, deletes parts of a message."""

    description = "Rules {op: set|rename|delete, path, value|expression, to}, one after the other."

    def configure(self, config: dict[str, Any]) -> None:
        rules = config.get("rules")
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise self.wrong("rules", "must be a list of objects")
        self._steps = [self._step(rule, f"rules[{index}]") for index, rule in enumerate(rules)]

    def _step(self, rule: dict[str, Any], key: str) -> Callable[[Message], None]:
        op, path, to = rule.get("op"), rule.get("path"), rule.get("to")
        if not isinstance(path, str) or not path:
            raise self.wrong(f"{key}.path", "must be a text")
        if op == "delete":
            return lambda message: void(paths.remove(message, path))
        if op == "rename" and isinstance(to, str) and to:
            return lambda message: paths.put(message, to, paths.remove(message, path))
        if op == "set" and "expression" in rule:
            expression = self.expression(rule["expression"], f"{key}.expression")
            return lambda message: paths.put(message, path, expression(message))
        if op == "set" and "value" in rule:
            return lambda message: paths.put(message, path, rule["value"])
        raise self.wrong(key, "must be set with value or expression, rename with to, or delete")

    def receive(self, message: Message) -> Outputs:
        for step in self._steps:
            step(message)
        return [(0, message)]


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


class Switch(Node):
    """Sends a message to the output of the rule that it meets."""

    description = "One output per rule {op: eq|neq|lt|lte|gt|gte|between|else, value | low, high} over `property`."

    def configure(self, config: dict[str, Any]) -> None:
        self._property = str(config.get("property") or "payload")
        self._all = bool(config.get("check_all", True))
        rules = config.get("rules")
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise self.wrong("rules", "must be a list of objects")
        self._rules = [self._rule(rule, f"rules[{index}]") for index, rule in enumerate(rules)]

    def _rule(self, rule: dict[str, Any], key: str) -> Callable[[Any], bool] | None:
        op = rule.get("op")
        if op == "else":
            return None
        if op == "between" and "low" in rule and "high" in rule:
            return lambda value: bool(rule["low"] <= value <= rule["high"])
        if isinstance(op, str) and op in COMPARISONS and "value" in rule:
            return lambda value: bool(COMPARISONS[op](value, rule["value"]))
        raise self.wrong(
            key, f"op must be else, between with low and high, or one of {', '.join(COMPARISONS)} with value"
        )

    def receive(self, message: Message) -> Outputs:
        value = paths.get(message, self._property)
        met: Outputs = []
        for port, rule in enumerate(self._rules):
            if (not met) if rule is None else _meets(rule, value):
                met.append((port, message))
                if not self._all:
                    break
        return met


def _meets(rule: Callable[[Any], bool], value: Any) -> bool:
    try:
        return rule(value)
    except TypeError:
        # A text is neither above nor below a number: such a rule is simply not met.
        return False


class Delay(Node):
    """Holds each message back."""

    description = "Holds each message back for `seconds`."

    def configure(self, config: dict[str, Any]) -> None:
        self._seconds = self.seconds(config, "seconds", 0.0, 1.0) or 0.0

    def delay(self) -> float:
        return self._seconds


class Debug(Node):
    """Shows a message in the agent's log."""

    category, outputs = "output", 0
    description = "Writes the message, or the part at `path`, to the agent's log and to the cloud's."

    def configure(self, config: dict[str, Any]) -> None:
        self._path = str(config.get("path") or "payload")

    def receive(self, message: Message) -> Outputs:
        value = message if self._path in ("msg", "complete") else paths.get(message, self._path)
        self.wiring.debug(self.spec, value)
        return []


TYPES: dict[str, type[Node]] = {
    "inject": Inject,
    "function": Function,
    "transform": Function,
    "change": Change,
    "switch": Switch,
    "delay": Delay,
    "debug": Debug,
}


def catalogue() -> list[dict[str, Any]]:
    """The node types as `get_node_types` tells them; a switch has as many outputs as rules."""
    return [
        {
            "type": name,
            "category": kind.category,
            "description": kind.description,
            "inputs": kind.inputs,
            "outputs": kind.outputs,
        }
        for name, kind in TYPES.items()
    ]


def shown(value: Any, limit: int = 500) -> str:
    """A value as one line of log."""
    try:
        text = value if isinstance(value, str) else encode(value)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def void(_: Any) -> None:
    """Throw a value away where a function without one is wanted."""
