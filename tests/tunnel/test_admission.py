"""Connects that a stopped process reads when it goes on: their devices may be elsewhere by then."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app import db
from app.batch import Batcher
from app.tunnel.admission import Admission, Refused
from app.tunnel.hub import FROZEN_SECONDS, Hub
from app.tunnel.protocol import Close, Connect, parse_connect
from app.tunnel.queries import Departure
from tests import make


@pytest.fixture
def tenant(app: Any) -> UUID:
    return make.organization()


@pytest.fixture
def admissions(app: Any) -> list[Admission]:
    """Those of two gateways."""
    departures: Batcher[Departure] = Batcher("departures", lambda _batch: None, seconds=0.01, most=10)
    return [Admission(f"gateway-{number}", departures) for number in range(2)]


def connect_of(tenant: UUID) -> Connect:
    made, key = make.device(tenant)
    return parse_connect(f'{{"type": "connect", "device_id": "{made.id}", "api_key": "{key}", "version": "2.0.0"}}')


def gateway_of(connect: Connect) -> Any:
    with db.transaction(system=True) as session:
        query = text("SELECT gateway, epoch FROM connections WHERE device_id = :id AND disconnected_at IS NULL")
        return session.execute(query, {"id": connect.device_id}).one_or_none()


def test_an_outdated_connect_takes_nothing_over(admissions: list[Admission], tenant: UUID) -> None:
    stopped, other = admissions
    connect = connect_of(tenant)
    now_there = other.ask(connect, None, lambda: False)
    with pytest.raises(Refused) as refused:
        stopped.ask(connect, None, lambda: True)
    assert refused.value.code == Close.TRY_LATER
    assert tuple(gateway_of(connect)) == ("gateway-1", now_there.epoch)
    came_back = stopped.ask(connect, None, lambda: False)
    assert tuple(gateway_of(connect)) == ("gateway-0", came_back.epoch)


def test_nor_does_one_that_was_being_admitted_when_its_process_stood_still(
    admissions: list[Admission], tenant: UUID
) -> None:
    stopped, other = admissions
    connect, looked = connect_of(tenant), iter([False, True])
    now_there = other.ask(connect, None, lambda: False)
    with pytest.raises(Refused) as refused:
        stopped.ask(connect, None, lambda: next(looked))
    assert refused.value.code == Close.TRY_LATER
    assert tuple(gateway_of(connect)) == ("gateway-1", now_there.epoch)


def test_those_beside_it_are_admitted(admissions: list[Admission], tenant: UUID) -> None:
    gateway, _ = admissions
    outcomes = dict[int, Any]()

    def ask(number: int) -> None:
        try:
            outcomes[number] = gateway.ask(connects[number], None, lambda: number % 2 == 0)
        except Refused as refused:
            outcomes[number] = refused.code

    connects = [connect_of(tenant) for _ in range(6)]
    with ThreadPoolExecutor(6) as together:
        list(together.map(ask, range(6)))
    assert [outcomes[number] == Close.TRY_LATER for number in range(6)] == [True, False] * 3


def test_a_socket_is_outdated_once_its_process_stood_still_after_it_was_opened(app: Any) -> None:
    hub = SimpleNamespace(_ticked_at=time.monotonic(), _woke_at=0.0)
    before: Any = SimpleNamespace(opened_at=time.monotonic())

    def outdated(socket: Any) -> bool:
        return Hub.outdated(hub, socket)  # type: ignore[arg-type]

    assert not outdated(before)
    hub._ticked_at -= FROZEN_SECONDS + 1  # it goes on, and nothing has looked at the clock yet
    assert outdated(before)
    hub._ticked_at = hub._woke_at = time.monotonic()
    after: Any = SimpleNamespace(opened_at=time.monotonic() + 0.001)
    assert (outdated(before), outdated(after)) == (True, False)
