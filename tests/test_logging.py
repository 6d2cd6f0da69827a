"""Log lines: what each says besides its own, whose it is, and that no secret stands in one."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
import structlog

from app import log_context
from app.observability import REDACTED, complete, configure_logging, redact
from config.settings import settings

ORG = UUID("3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as in production."""
    root, configuration = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    configure_logging(replace(settings(), log_format="json", log_level="INFO"))
    written = io.StringIO()
    root.handlers[0].setStream(written)  # type: ignore[attr-defined]
    log_context.begin()
    yield written
    log_context.begin()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**configuration)


def last(lines: io.StringIO) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(lines.getvalue().splitlines()[-1])
    return line


def test_a_line_says_what_its_work_said_and_its_own_word_counts(lines: io.StringIO) -> None:
    log_context.begin(request_id="r-1", actor="user:ada@example.com")
    log_context.bind(org_id=ORG, outcome="ok")
    structlog.get_logger("rooms").info("request", outcome="late", ms=1.5)
    line = last(lines)
    moment = datetime.fromisoformat(line.pop("timestamp"))
    assert moment.tzinfo is not None
    assert line == {
        "event": "request", "outcome": "late", "ms": 1.5, "request_id": "r-1", "actor": "user:ada@example.com",
        "org_id": str(ORG), "level": "info", "logger": "rooms",
    }  # fmt: skip


def test_new_work_says_nothing_of_the_last_one(lines: io.StringIO) -> None:
    log_context.begin(request_id="r-1", actor="somebody")
    log_context.begin(request_id="r-2")
    structlog.get_logger("rooms").warning("done")
    assert (last(lines)["request_id"], "actor" in last(lines)) == ("r-2", False)


def test_what_one_thread_says_no_other_does() -> None:
    log_context.begin(request_id="mine")
    seen = list[Any]()

    def work() -> None:
        log_context.bind(job="other")
        seen.append(dict(log_context.fields()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[0]["job"] == "other"
    assert dict(log_context.fields()) == {"request_id": "mine"}
    log_context.begin()


def test_fields_that_were_taken_do_not_change_with_what_is_said_later() -> None:
    log_context.begin(request_id="r-1")
    taken = log_context.fields()
    log_context.bind(actor="ada")
    assert dict(taken) == {"request_id": "r-1"}
    log_context.begin()


def test_a_library_s_line_says_the_same(lines: io.StringIO) -> None:
    log_context.begin(request_id="r-1")
    logging.getLogger("some.library").warning("slow: %s", "password://u:secret@host")
    line = last(lines)
    assert (line["logger"], line["level"], line["request_id"]) == ("some.library", "warning", "r-1")
    assert "secret" not in json.dumps(line)


def test_a_failure_is_told_with_its_trace(lines: io.StringIO) -> None:
    try:
        raise ValueError("at 4111 1111 1111 1111")
    except ValueError:
        structlog.get_logger("rooms").exception("failed")
        ours = last(lines)
        logging.getLogger("some.library").exception("failed")
    for line in (ours, last(lines)):
        assert (line["level"], line["event"]) == ("error", "failed")
        assert "Traceback" in line["exception"]
        assert "4111" not in line["exception"]


def test_no_secret_of_the_context_is_told(lines: io.StringIO) -> None:
    token = "edgeflow_" + "a" * 30
    log_context.begin(request_id=token, api_key="x", actor=f"key {token}")
    structlog.get_logger("rooms").info("request", path=f"/devices/{token}")
    line = last(lines)
    assert (line["request_id"], line["api_key"]) == (REDACTED, REDACTED)
    assert token not in json.dumps(line)


def test_one_step_makes_what_structlog_s_own_make_in_six(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference: its processors, one after the other, on the same events."""
    chain: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.format_exc_info,
        redact,
    ]
    logger: Any = type("Named", (), {"name": "rooms"})()
    events: list[dict[str, Any]] = [
        {"event": "plain"},
        {"event": "with", "password": "x", "count": 4111111111111111, "none": None, "flag": True, "at": 1.5},
        {"event": "https://u:p@host", "exc_info": ValueError("no"), "list": [1, "eyJa.b.c"]},
        {"event": "told twice", "request_id": "own"},
    ]
    with structlog.contextvars.bound_contextvars(request_id="r-1", actor="ada"):
        log_context.begin(request_id="r-1", actor="ada")
        for method in ("info", "warn", "exception", "error"):
            for event in events:
                expected: Any = dict(event)
                for step in chain:
                    expected = step(logger, method, expected)
                made = dict(complete(logger, method, dict(event)))
                assert made.pop("timestamp").endswith("Z")
                assert made == expected
    log_context.begin()
