"""What a tunnel costs: the memory of idle ones in one web process, and the time until all are back after a crash.

Devices are real sockets of another process (``bench.swarm``). The crash: the web process is killed, gunicorn starts
another behind the same listening socket, and all devices dial at once.
"""

import time
from collections.abc import Callable

from bench.platform import House, Member, devices
from bench.report import Figure, at_most, told
from bench.swarm import Swarm

WARM_UP = 50


def run(*, idle: int = 5_000, storm: int = 1_000, settle: float = 8.0, durable: bool = True) -> list[Figure]:
    """``idle`` tunnels for the memory, ``storm`` devices for the crash; ``settle``: seconds before memory is read."""
    with House(web=1, parts=(), durable=durable) as house:
        org_id, _token = house.sign_up()
        members = devices(max(idle, storm, WARM_UP), org_id)
        return [*_memory(house, members[:idle], settle), *_storm(house, members[:storm])]


def _memory(house: House, members: list[Member], settle: float) -> list[Figure]:
    """The growth of the web process's resident memory; what the first connects load once is left out."""
    url = f"{house.url()}/tunnel"
    with Swarm(url, members[:WARM_UP]):
        time.sleep(settle / 4)
    time.sleep(settle / 4)
    before = house.serving().memory_info().rss
    with Swarm(url, members, at_once=200) as swarm:
        time.sleep(settle)
        grown = house.serving().memory_info().rss - before
        connecting = swarm.first["seconds"]
    return [
        at_most("tunnels.kb_per_tunnel", grown / len(members) / 1000, "kB", 70),
        told("tunnels.connects_per_second", len(members) / connecting, "/s"),
    ]


def _storm(house: House, members: list[Member]) -> list[Figure]:
    with Swarm(f"{house.url()}/tunnel", members) as swarm:
        killed, _ = _until_back(swarm, lambda: house.serving().kill())
        cut, connects = _until_back(swarm, swarm.cut)
    count = len(members)
    return [
        at_most(f"tunnels.reconnect_{count}_seconds", killed, "s", 5),
        told(f"tunnels.reconnect_{count}_after_a_cut_seconds", cut, "s"),
        told("tunnels.connect_p50_ms", connects["p50_ms"], "ms in that storm"),
        told("tunnels.connect_p99_ms", connects["p99_ms"], "ms in that storm"),
    ]


def _until_back(swarm: Swarm, breaks: Callable[[], None]) -> tuple[float, dict[str, float]]:
    """Seconds from the break until the last device is connected again, and what the devices say of it."""
    started = time.monotonic()
    breaks()
    connects = swarm.all_connected()
    return time.monotonic() - started, connects
