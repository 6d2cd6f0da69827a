"""Every job that somebody asks for has an actor."""

import ast
from collections.abc import Iterator
from pathlib import Path

from app import jobs
from scheduler.schedule import SCHEDULE
from tests.platform import ROOT

ASKING = {"enqueue", "send", "send_many"}


def calls() -> Iterator[tuple[Path, ast.Call]]:
    for room in ("app", "workers", "scheduler"):
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call):
                    yield file, node


def is_job(node: ast.expr | None) -> bool:
    """Whether it is the text of a name like ``rollouts.advance``."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value


def names() -> set[str]:
    found = {entry.job for entry in SCHEDULE}
    for _file, call in calls():
        function = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        asked = [call.args[0]] if function in ASKING and call.args else []
        asked += [keyword.value for keyword in call.keywords if keyword.arg == "answer_to"]
        found |= {node.value for node in asked if is_job(node)}  # type: ignore[attr-defined]
    return found


def test_every_enqueued_name_has_an_actor() -> None:
    import workers  # noqa: F401  declares the actors

    wanted, declared = names(), jobs.broker().get_declared_actors()
    assert "rollouts.advance" in wanted  # the search finds something
    assert wanted - declared == set()
