"""The receiver of webhooks as the supervisor runs it: it believes what is signed, once, and nothing else."""

import hmac
import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from config import webhook_receiver
from tests.config import parts
from tests.platform import ROOT, free_port

SECRET = "a secret that both sides know"
PAYLOAD = {
    "kind": "firing",
    "count": 2,
    "rule": {"name": "Too\nhot"},
    "alerts": [{"device_name": "pump-7", "value": 91.5}, {"device_name": None, "subject": "s", "value": None}],
}
BODY = json.dumps(PAYLOAD).encode()


class Running:
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "log"
        program = webhook_receiver.program(self.port, SECRET, ROOT, parts.environment(folder))
        assert SECRET not in " ".join(program.command)
        with self.log.open("wb") as output:
            self.process = program.spawn(output)

    def post(self, headers: dict[str, str], body: bytes = BODY) -> int:
        transport = httpx.HTTPTransport(retries=8)
        with httpx.Client(transport=transport, timeout=5) as client:
            return client.post(webhook_receiver.url(self.port), content=body, headers=headers).status_code

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path)
    yield one
    one.process.kill()
    one.process.wait()


def signed(secret: str = SECRET, age: int = 0, body: bytes = BODY, delivery: str = "d-1") -> dict[str, str]:
    """As the platform signs it."""
    timestamp = str(int(time.time()) - age)
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, "sha256").hexdigest()
    return {"X-EdgeFlow-Timestamp": timestamp, "X-EdgeFlow-Signature": f"v1={digest}", "X-EdgeFlow-Delivery": delivery}


def test_what_the_platform_signs_is_one_line_however_often_it_comes(running: Running) -> None:
    assert [running.post(signed()), running.post(signed()), running.post(signed(delivery="d-2"))] == [204] * 3
    line = "webhook, signature valid: firing: Too hot: pump-7 91.5, s (2)"
    assert running.lines() == [line, line]


def test_the_rest_is_refused(running: Running) -> None:
    forged = [
        {},
        signed(secret="another"),
        signed(age=310),
        signed(age=-310),
        signed(body=b"{}"),
        {**signed(), "X-EdgeFlow-Timestamp": str(int(time.time()) - 1)},
        {**signed(), "X-EdgeFlow-Timestamp": "x"},
        {**signed(), "X-EdgeFlow-Signature": "v1="},
    ]
    assert [running.post(headers) for headers in forged] == [401] * len(forged)
    assert set(running.lines()) == {"webhook refused: its signature is wrong or old"}
    assert running.post(signed()) == 204


def test_a_body_without_end_is_not_read(running: Running) -> None:
    running.post({})
    for length, status in ((str(webhook_receiver.MOST_BYTES + 1), 413), ("-1", 411), ("", 411)):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
        connection.putrequest("POST", "/edgeflow")
        connection.putheader("Content-Length", length)
        connection.endheaders()
        assert connection.getresponse().status == status
        connection.close()


def test_it_ends_when_asked_and_a_taken_port_is_one_line(running: Running, tmp_path: Path) -> None:
    running.post({})
    taken = webhook_receiver.program(running.port, SECRET, ROOT, parts.environment(tmp_path)).spawn(subprocess.PIPE)
    output, _ = taken.communicate(timeout=10)
    assert taken.returncode == 1
    assert output.decode().startswith("cannot start: ")
    assert len(output.splitlines()) == 1
    running.process.terminate()
    assert running.process.wait(5) == 0
