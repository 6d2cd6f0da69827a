"""More requests than database connections: they wait, then 503, never 500; once it is quiet all is as before."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.invariants.conftest import Caller, until
from tests.invariants.servers import Servers
from tests.platform import Platform

pytestmark = pytest.mark.xdist_group("own_servers")

AT_ONCE = 50


@pytest.fixture(scope="module")
def narrow(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A web process with two database connections."""
    environ = {
        **servers.environ,
        "EDGEFLOW_RATE_LIMITS": "0",
        "EDGEFLOW_DATABASE_POOL": "2",
        "EDGEFLOW_DATABASE_TIMEOUT": "1",
    }
    with Platform(tmp_path_factory.mktemp("narrow"), environ=environ, parts=()) as running:
        yield running


def at_once(caller: Caller) -> Counter[int]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Counter(pool.map(lambda _: caller.http.get("/devices").status_code, range(AT_ONCE)))


def test_short_waits_are_waited_out(narrow: Platform) -> None:
    assert at_once(Caller(narrow.url())) == {200: AT_ONCE}


def test_long_waits_end_with_503_and_it_recovers(narrow: Platform, servers: Servers) -> None:
    ada = Caller(narrow.url())
    locked, done = threading.Event(), threading.Event()

    def lock() -> None:
        with psycopg.connect(servers.superuser_url) as connection:
            connection.execute("LOCK TABLE devices IN ACCESS EXCLUSIVE MODE")
            locked.set()
            done.wait(40)

    holder = threading.Thread(target=lock)
    holder.start()
    try:
        locked.wait(5)
        started = time.monotonic()
        answers = [ada.http.get("/devices")]
        found = at_once(ada)
        seconds = time.monotonic() - started
    finally:
        done.set()
        holder.join()
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(answers[0].headers["Retry-After"]) >= 1
    assert found == {503: AT_ONCE}
    assert seconds < 25
    until(lambda: at_once(ada) == {200: AT_ONCE}, 10)
