"""What a large download costs those who want something else of the same tunnel."""

import asyncio
import time

import pytest

from tests.agent.editors import edited, local_server, run

SIZE = 100_000_000
OK = b"HTTP/1.1 200 OK\r\n"


async def sending(asked, reader, writer):
    writer.write(OK + f"Content-Length: {SIZE}\r\n\r\n".encode())
    for _ in range(SIZE // 100_000):
        writer.write(bytes(100_000))
        await writer.drain()


async def answers(far, enough):
    """How long `health_check` took, ascending, in seconds: one after the other until `enough(count)`."""
    took = []
    while not enough(len(took)):
        since = time.perf_counter()
        await far.link.ask("health_check")
        took.append(time.perf_counter() - since)
        await asyncio.sleep(0.001)
        far.link.frames.clear()
    return sorted(took)


def at(share, took):
    return took[int(share * (len(took) - 1))]


@pytest.mark.slow
def test_a_large_download_does_not_hold_answers_up():
    async def work():
        async with local_server(sending) as server, edited(server.url) as far:
            far.keeps = False
            far.device.driver.behaviour = far.device.driver.behaviour
            idle = await answers(far, lambda count: count == 500)
            flow = far.open()
            busy = await answers(far, lambda count: flow.over)
            assert (flow.received, flow.cancel) == (SIZE, None)
            print(f"idle p50 {at(.5, idle)*1e3:.2f} p99 {at(.99, idle)*1e3:.2f} busy p50 {at(.5,busy)*1e3:.2f} p99 {at(.99,busy)*1e3:.2f} max {busy[-1]*1e3:.2f} n={len(busy)}")

    run(work, 60)
