"""Parts of the tunnel break: links, gateways, Redis, PostgreSQL. Callers get honest answers, devices come back."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import httpx
import psutil
import pytest
import redis
from sqlalchemy import text

from app import db
from app.tunnel.calls import GRACE_SECONDS, WATCH_SECONDS
from app.tunnel.hub import FROZEN_SECONDS
from config.launch import valkey
from config.settings import settings
from tests import make
from tests.e2e.conftest import until
from tests.platform import ROOT, Platform, free_port
from tests.tunnel.conftest import V2, Caller, Device
from tests.tunnel.hostile import KINDS
from tests.tunnel.proxy import Proxy
from tests.tunnel.wire import CLOSE, PONG, TEXT, Wire

pytestmark = pytest.mark.xdist_group("tunnel-faults")

OFFLINE_AFTER = 3


class Island:
    """Two web processes with a Redis of their own, behind a link to PostgreSQL that can be cut."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.redis_port = folder, free_port()
        self.redis: subprocess.Popen[bytes]
        database = urlsplit(settings().database_url)
        assert database.hostname
        assert database.port
        self.database = Proxy((database.hostname, database.port))
        netloc = database.netloc.replace(f":{database.port}", f":{self.database.port}")
        self.web = Platform(
            folder,
            web=2,
            parts=(),
            environ={
                "DATABASE_URL": urlunsplit(database._replace(netloc=netloc)),
                "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
                "EDGEFLOW_OFFLINE_AFTER": str(OFFLINE_AFTER),
            },
        )

    def start_redis(self) -> None:
        command = [str(valkey.binary()), "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", ""]
        self.redis = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL)

    def kill_redis(self) -> None:
        self.redis.kill()
        self.redis.wait(5)

    def worker(self, number: int) -> psutil.Process:
        """The process that holds the sockets (its parent is gunicorn's master)."""
        (worker,) = psutil.Process(self.web.processes[f"web{number}"].pid).children()
        return worker


@pytest.fixture(scope="module")
def island(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Island]:
    made = Island(tmp_path_factory.mktemp("island"))
    made.start_redis()
    try:
        with made.database, made.web:
            yield made
    finally:
        made.kill_redis()


@pytest.fixture
def caller(island: Island, tenant: UUID) -> Iterator[Caller]:
    """A REST client of the second web process."""
    made = Caller(island.web.url(1), make.api_key(tenant, "operator"))
    yield made
    made.http.close()


@pytest.fixture
def device(island: Island, tenant: UUID) -> Iterator[Device]:
    """A v2 device on the first web process."""
    made, key = make.device(tenant)
    connected = Device(island.web.url(0), made.id, key, **V2)
    yield connected
    connected.close()


def answering(device: Device, data: Any = None) -> None:
    """Answer every command of a device, in a thread, until it is closed."""

    def run() -> None:
        try:
            while True:
                device.answer(data, timeout=60)
        except Exception:
            return  # closed: the test is over, or has cut it off

    threading.Thread(target=run, daemon=True).start()


def status_of(caller: Caller, device_id: Any) -> str:
    return str(caller("GET", f"/devices/{device_id}/status").json()["status"])


def test_a_half_open_link_is_noticed_and_its_caller_answered(island: Island, tenant: UUID, caller: Caller) -> None:
    made, key = make.device(tenant)
    address = urlsplit(island.web.url(0))
    with Proxy((str(address.hostname), int(address.port or 0))) as link:
        device = Device(f"http://127.0.0.1:{link.port}", made.id, key, **V2)
        time.sleep(OFFLINE_AFTER + 1.5)  # longer than the limit, and quiet: pings keep it alive
        waiting = caller.later("GET", f"/edge-nodes/{made.id}/health?timeout=30")
        assert device.receive()["action"] == "health_check"
        link.stall()
        stalled = time.monotonic()
        answer = waiting.result()
        assert (answer.status_code, answer.json()["outcome"]) == (502, "unknown")
        assert OFFLINE_AFTER - 1.5 < time.monotonic() - stalled < OFFLINE_AFTER + 1
        until(lambda: status_of(caller, made.id) == "offline", 2)
        again = caller("GET", f"/edge-nodes/{made.id}/health")
        assert (again.status_code, again.json()["outcome"]) == (503, "not_sent")


def test_a_replaced_link_that_never_answers_is_closed_all_the_same(island: Island, tenant: UUID) -> None:
    """The usual reconnect: the old link is dead, and nobody at its other end reads the close frame."""
    made, key = make.device(tenant)
    before = island.worker(0).num_fds()
    dead = [Wire.dial(island.web.url(0)) for _ in range(10)]
    for wire in dead:
        assert wire.hello(made.id, key, **V2)["type"] == "connected"
    until(lambda: island.worker(0).num_fds() <= before + 3, OFFLINE_AFTER + 2)
    for wire in dead:
        wire.close()


def test_a_database_briefly_away_costs_devices_a_wait_and_not_a_try(
    island: Island, tenant: UUID, device: Device, caller: Caller
) -> None:
    island.database.cut()
    try:
        started, dialled = time.monotonic(), list[Device]()
        made = make.devices(4, tenant)
        threads = [
            threading.Thread(target=lambda one=one: dialled.append(Device(island.web.url(0), one[0].id, one[1])))
            for one in made
        ]
        for thread in threads:
            thread.start()
        device.send({"type": "command", "id": "7", "action": "get_shadow", "payload": {}})
        answer = device.receive()
        assert (answer["status"], answer["code"]) == ("error", "SERVICE_UNAVAILABLE")
        assert caller("GET", "/devices").status_code == 503
        time.sleep(2)
    finally:
        island.database.restore()
    for thread in threads:
        thread.join(8)
    assert [one.first["type"] for one in dialled] == ["connected"] * 4
    assert 2 < time.monotonic() - started < 9
    device.send({"type": "command", "id": "8", "action": "get_shadow", "payload": {}})
    assert device.receive()["status"] == "success"
    for one in dialled:
        one.close()


def test_a_device_that_left_while_the_database_was_away_is_written_down(
    island: Island, tenant: UUID, caller: Caller
) -> None:
    made, key = make.device(tenant)
    leaving = Device(island.web.url(0), made.id, key, **V2)
    island.database.cut()
    try:
        leaving.close()
        time.sleep(0.5)
    finally:
        island.database.restore()

    def reason() -> Any:
        with db.transaction(system=True) as session:
            query = text(
                "SELECT disconnect_reason FROM connections WHERE device_id = :id AND disconnected_at IS NOT NULL"
            )
            return session.scalar(query, {"id": made.id})

    assert until(reason, 3) is not None


def test_redis_restarted_costs_seconds_and_no_honesty(island: Island, device: Device, caller: Caller) -> None:
    path = f"/edge-nodes/{device.device_id}/health?timeout=10"
    waiting = caller.later("GET", path)
    command = device.receive()
    island.kill_redis()
    device.send({"type": "response", "id": command["id"], "status": "success", "data": {"status": "late"}})
    answering(device, {"status": "healthy"})
    between = [caller.later("GET", path) for _ in range(3)]
    assert {one.result().status_code for one in between} <= {502, 503, 504}
    assert all(one.result().json()["outcome"] in ("unknown", "not_sent") for one in between)
    island.start_redis()
    restarted = time.monotonic()
    until(lambda: caller("GET", path).status_code == 200, 3, every=0.05)
    assert time.monotonic() - restarted < 3
    assert waiting.result().json() == {"status": "late"}  # it was kept for its caller


def test_a_process_reaches_all_devices_over_two_connections_and_outlives_their_loss(
    island: Island, device: Device, caller: Caller
) -> None:
    """One subscribes, one carries all publishes, however many callers there are; an answer on its way is kept."""
    path = f"/edge-nodes/{device.device_id}/health?timeout=10"
    server = redis.Redis(port=island.redis_port)
    waiting = [caller.later("GET", path) for _ in range(20)]
    commands = [device.receive() for _ in waiting]
    links = [one for one in server.client_list() if one["name"] == "edgeflow-link"]
    assert len(links) <= 2 * len(island.web.ports)  # the pipe of a process is made at its first use
    for one in links:
        server.client_kill_filter(_id=one["id"])
    for command in commands:
        device.send({"type": "response", "id": command["id"], "status": "success", "data": {"status": "kept"}})
    assert [one.result(8).json() for one in waiting] == [{"status": "kept"}] * len(waiting)
    fresh = [one for one in server.client_list() if one["name"] == "edgeflow-link"]
    assert not {one["id"] for one in fresh} & {one["id"] for one in links}


def test_a_killed_gateway_answers_callers_of_the_others_within_seconds(
    island: Island, tenant: UUID, device: Device, caller: Caller
) -> None:
    waiting = caller.later("POST", f"/edge-nodes/{device.device_id}/flows/a/stop?timeout=60")
    device.receive()
    killed = time.monotonic()
    island.web.kill("web0")
    answer = waiting.result()
    assert (answer.status_code, answer.json()["outcome"]) == (502, "unknown")
    assert time.monotonic() - killed < 4
    at_once = caller("GET", f"/edge-nodes/{device.device_id}/health")
    assert (at_once.status_code, at_once.json()["outcome"]) == (503, "not_sent")
    island.web.start("web0")
    island.web.wait_ready()


def test_a_gateway_that_stands_still_keeps_callers_of_the_others_no_longer_than_they_asked(
    island: Island, device: Device, caller: Caller
) -> None:
    """Redis took the command and its gateway still listens, so nothing says that no answer will come."""
    stopped = island.worker(0)
    stopped.suspend()
    try:
        started = time.monotonic()
        answer = caller("GET", f"/edge-nodes/{device.device_id}/health?timeout=1")
        took = time.monotonic() - started
    finally:
        stopped.resume()
    assert (answer.status_code, answer.json()["code"], answer.json()["outcome"]) == (504, "DEVICE_TIMEOUT", "unknown")
    assert 1 <= took < 1 + GRACE_SECONDS + 2 * WATCH_SECONDS


def test_what_a_device_had_said_to_a_gateway_that_stood_still_does_not_take_it_from_where_it_went(
    island: Island, tenant: UUID, caller: Caller
) -> None:
    made, key = make.device(tenant)
    left = Wire.dial(island.web.url(0))  # the link is made, and nothing said yet
    stopped = island.worker(0)
    stopped.suspend()
    try:
        left.say({"type": "connect", "device_id": str(made.id), "api_key": key, "version": "1.0.0", **V2})
        device = Device(island.web.url(1), made.id, key, **V2)
        answering(device, {"status": "healthy"})
        time.sleep(FROZEN_SECONDS + 1)
    finally:
        stopped.resume()
    assert left.code() in (None, 1013)  # its time to speak may be over as well
    time.sleep(1)
    assert caller("GET", f"/edge-nodes/{made.id}/health").json() == {"status": "healthy"}
    assert [row.up for row in rows([made.id])] == [True]
    device.close()
    again = Device(island.web.url(0), made.id, key, **V2)  # and whoever comes now is let in
    assert again.first["type"] == "connected"
    again.close()


def rows(device_ids: list[UUID]) -> list[Any]:
    """Their connections: gateway, epoch, whether it stands."""
    with db.transaction(system=True) as session:
        query = text(
            "SELECT gateway, epoch, disconnected_at IS NULL AS up FROM connections WHERE device_id = ANY (:ids)"
        )
        return list(session.execute(query, {"ids": device_ids}))


def farewell(wire: Wire) -> tuple[list[str], int]:
    """The types of the last texts, and the close code; the close is answered."""
    said = []
    while True:
        opcode, payload = wire.read()
        if opcode == TEXT:
            said.append(payload.decode().split('"type":"')[1].split('"')[0])
        elif opcode == CLOSE:
            wire.frame(CLOSE, payload[:2])
            wire.close()
            return said, int.from_bytes(payload[:2])


def test_a_stopping_web_process_sends_its_devices_elsewhere(island: Island, tenant: UUID) -> None:
    made = make.devices(50, tenant)
    ids = [one.id for one, _key in made]
    wires = [Wire.dial(island.web.url(0)) for _ in made]
    for number, (wire, (one, key)) in enumerate(zip(wires, made, strict=True)):
        assert wire.hello(one.id, key, **(V2 if number % 2 else {}))["type"] == "connected"
    before = {row.gateway for row in rows(ids)}
    stopped = time.monotonic()
    island.web.kill("web0", signal.SIGTERM)
    for number, (wire, (one, key)) in enumerate(zip(wires, made, strict=True)):
        assert farewell(wire) == (["bye"] if number % 2 else [], 1012)
        wires[number] = Wire.dial(island.web.url(1))
        assert wires[number].hello(one.id, key, **(V2 if number % 2 else {}))["type"] == "connected"
        for moved in wires[: number + 1]:
            moved.frame(PONG)  # so that it is not silent for too long, however slow this machine is
    assert time.monotonic() - stopped < 8

    def ended() -> bool:
        for wire in wires:
            wire.frame(PONG)
        return island.web.processes["web0"].poll() is not None

    until(ended, 9)
    after = rows(ids)
    assert all(row.up and row.gateway not in before for row in after)
    for wire in wires:
        wire.close()
    island.web.start("web0")
    island.web.wait_ready()


def test_devices_of_a_stopped_web_process_are_offline_at_once(island: Island, tenant: UUID) -> None:
    made = make.devices(10, tenant)
    wires = [Wire.dial(island.web.url(0)) for _ in made]
    for wire, (one, key) in zip(wires, made, strict=True):
        wire.hello(one.id, key)
    island.web.kill("web0", signal.SIGTERM)
    for wire in wires:
        farewell(wire)
    island.web.processes["web0"].wait(9)
    assert not any(row.up for row in rows([one.id for one, _key in made]))
    island.web.start("web0")
    island.web.wait_ready()


def test_no_dial_is_refused_while_workers_are_replaced(island: Island, tenant: UUID) -> None:
    made, key = make.device(tenant)
    first = Wire.dial(island.web.url(0))
    first.hello(made.id, key, **V2)
    old = island.worker(0).pid
    island.web.kill("web0", signal.SIGHUP)
    until(lambda: [child.pid for child in psutil.Process(island.web.processes["web0"].pid).children()] != [old], 5)
    dials, deadline = 0, time.monotonic() + 12
    while psutil.pid_exists(old) and time.monotonic() < deadline:
        again = Wire.dial(island.web.url(0))  # a refusal raises
        assert again.hello(made.id, key, **V2)["type"] == "connected"
        again.close()
        dials += 1
        time.sleep(0.05)
    assert not psutil.pid_exists(old)
    assert dials >= 2
    assert farewell(first)[1] in (1012, 4009)


def test_a_hostile_crowd_harms_nobody_else(island: Island, tenant: UUID) -> None:
    healthy = [Device(island.web.url(0), one.id, key, **V2) for one, key in make.devices(20, tenant)]
    for one in healthy:
        answering(one, {"status": "healthy"})
    callers = [Caller(island.web.url(0), make.api_key(tenant, "operator")) for _ in range(4)]
    took = list[float]()
    ask(callers, healthy, took, 0.5)  # the process has its connections and caches before it is measured
    took.clear()
    worker = island.worker(0)
    descriptors, memory = worker.num_fds(), worker.memory_info().rss
    attackers = make.devices(len(KINDS), make.organization())
    crowd = subprocess.Popen(
        [*(sys.executable, "-m", "tests.tunnel.hostile", island.web.url(0), "8")]
        + [f"{one.id}={key}" for one, key in attackers],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    most = memory
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        ask(callers, healthy, took, 0.5)
        most = max(most, worker.memory_info().rss)
    told, _ = crowd.communicate(timeout=15)
    took.sort()
    report = f"p50 {took[len(took) // 2]:.3f} p99 {took[int(len(took) * 0.99)]:.3f} n {len(took)}; {told}"
    assert len(took) > 50, report
    assert took[int(len(took) * 0.99)] < 1, report
    assert most - memory < 64 * 1024 * 1024, f"{(most - memory) / 1e6:.0f} MB; {report}"
    assert worker.is_running()
    for caller in callers:
        caller.http.close()
    for one in healthy:
        one.close()
    until(lambda: worker.num_fds() <= descriptors + 5, 12)
    print(report, f"+{(most - memory) / 1e6:.0f} MB")


def ask(callers: list[Caller], devices: list[Device], took: list[float], seconds: float) -> None:
    """Ask devices in turn from several callers at once; how long each answer took."""
    deadline = time.monotonic() + seconds

    def run(number: int, caller: Caller) -> None:
        turn = number
        while time.monotonic() < deadline:
            started = time.monotonic()
            answer = caller("GET", f"/edge-nodes/{devices[turn % len(devices)].device_id}/health")
            assert answer.status_code == 200, answer.text
            took.append(time.monotonic() - started)
            turn += len(callers)

    failures = list[BaseException]()

    def guarded(number: int, caller: Caller) -> None:
        try:
            run(number, caller)
        except (AssertionError, httpx.HTTPError) as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=one) for one in enumerate(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    if failures:
        raise failures[0]
