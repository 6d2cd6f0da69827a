"""Several people in one device's editor: to each his own bytes, his own pace and his own end."""

import queue
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import until
from tests.edge_nodes.editor.conftest import Browser, Served, Setting, ended, head_of
from tests.edge_nodes.editor.several import Talk, Workshop, at_once, audit, download, marked, rest_of, upload
from tests.edge_nodes.editor.test_sessions import become_viewer, lose_membership, sign_out, signed_in

pytestmark = pytest.mark.xdist_group("editors")

SIZE = 400_000  # more than a window, so that nothing arrives without credit


def work(shop: Workshop, browser: Browser, who: str) -> list[bool]:
    """One person's evening: a socket, two downloads and two uploads at the same time; whether each got its own."""
    talk = Talk(browser)
    said, shop_name = marked(f"{who}-talk", SIZE // 2), f"{shop.name}\n".encode()

    def sent(target: str) -> bool:
        return upload(browser, target, shop.bytes_of(target)) == f"{shop.name} True"

    done = at_once(
        [
            lambda: (talk.device, talk.say(said)) == (shop_name, said),
            lambda: download(browser, f"/down/{who}-a/{SIZE}") == shop.bytes_of(f"/down/{who}-a/{SIZE}"),
            lambda: download(browser, f"/down/{who}-b/{SIZE}") == shop.bytes_of(f"/down/{who}-b/{SIZE}"),
            lambda: sent(f"/up/{who}-c/{SIZE}"),
            lambda: sent(f"/up/{who}-d/{SIZE}"),
        ]
    )
    talk.close()
    return done


def test_each_of_six_people_gets_his_own_bytes(setting: Setting) -> None:
    """Each with a browser of his own, half of them at the web process that holds the tunnel."""
    shop = Workshop("pump")
    setting.connect(shop)
    browsers = [setting.browser(web=number % 2) for number in range(6)]
    calls = [lambda one=one, who=f"p{number}": work(shop, one, who) for number, one in enumerate(browsers)]
    assert at_once(calls) == [[True] * 5] * 6
    opened = audit(setting, "editor.opened")
    assert len({one["editor_session_id"] for one in opened}) == len(opened) == 6


@pytest.mark.parametrize("web", [0, 1], ids=["the process with the tunnel", "another process"])
def test_who_reads_slowly_slows_nobody_else(setting: Setting, web: int) -> None:
    """While one browser takes nothing, others get all of theirs, at both processes; then it gets its own, whole."""
    shop = Workshop("pump")
    setting.connect(shop)
    size, target = 12_000_000, "/down/idler/12000000"
    idler, busy = setting.browser(web=web), [setting.browser(web=number) for number in (0, 1)]
    with idler.dial(target, receive_buffer=4096) as wire:
        held = standstill(lambda: shop.given.get(target, 0))
        assert held > 0
        calls = [lambda one=one: download(one, "/down/busy/3000000") for one in busy]
        assert at_once(calls) == [shop.bytes_of("/down/busy/3000000")] * 2
        talk = Talk(busy[web])
        assert talk.say(b"still quick") == b"still quick"
        talk.close()
        assert held <= shop.given[target] < size  # what the kernels of the two hold, and a window
        head_of(wire)
        wire.settimeout(30)
        got = b""
        while len(got) < size:
            got += wire.recv(1 << 20)
        assert got == shop.bytes_of(target)


@pytest.mark.parametrize("web", [0, 1], ids=["the process with the tunnel", "another process"])
def test_an_upload_that_the_device_does_not_take_holds_up_no_other(setting: Setting, web: int) -> None:
    shop = Workshop("pump")
    setting.connect(shop)
    late, size = "/late/patient/3000000", 3_000_000
    patient, busy = setting.browser(web=web), setting.browser(web=web)
    with patient.dial(late, method="POST", Content_Length=str(size)) as wire:
        content, sent = shop.bytes_of(late), 0
        wire.setblocking(False)
        quiet = time.monotonic()
        while sent < size and time.monotonic() - quiet < 1:
            try:
                sent += wire.send(content[sent : sent + 65536])
                quiet = time.monotonic()
            except BlockingIOError:
                time.sleep(0.02)
        assert upload(busy, f"/up/busy/{size}", shop.bytes_of(f"/up/busy/{size}")) == "pump True"
        shop.hurry.set()
        wire.settimeout(20)
        wire.sendall(content[sent:])
        assert head_of(wire).startswith("HTTP/1.1 200")
        told = b""
        while b"pump True" not in told:
            part = wire.recv(100)
            assert part, told
            told += part


@pytest.mark.parametrize("end", [sign_out, lose_membership, become_viewer], ids=lambda end: end.__name__)
def test_one_persons_end_is_nobody_elses(setting: Setting, end: Callable[..., None]) -> None:
    """Sockets and downloads of the one end at once, those of two others are there to their last byte."""
    shop = Workshop("pump")
    setting.connect(shop)
    headers, user_id = signed_in(setting)
    leaving = setting.browser(web=1, headers=headers)
    staying = [setting.browser(web=number, headers=signed_in(setting)[0]) for number in (0, 1)]
    target = "/slow/anybody/600000"
    talks = [Talk(one) for one in [leaving, *staying]]
    wires = [one.dial(target) for one in [leaving, *staying]]
    until(lambda: shop.given.get(target, 0) > 2_000, timeout=15)
    end(setting, headers, user_id)
    assert ended(talks[0].wire, 8)
    looks_on = end is become_viewer
    if not looks_on:
        assert len(rest_of(wires[0])) < 600_000
    for talk in talks[1:]:
        assert talk.say(marked("stays", 50_000)) == marked("stays", 50_000)
    shop.hurry.set()
    for wire in wires[0 if looks_on else 1 :]:
        head_of(wire)
        wire.settimeout(20)
        got = b""
        while len(got) < 600_000:
            got += wire.recv(65536)
        assert got == shop.bytes_of(target)
    assert [one("POST", f"/up/x/{10}", content=shop.bytes_of("/up/x/10")).status_code for one in staying] == [200, 200]
    assert leaving("POST", "/up/x/10", content=b"").status_code == 403
    assert leaving("GET", "/").status_code == (200 if looks_on else 403)
    if not looks_on:
        until(lambda: sessions_of(setting, "editor.closed"), timeout=3)
    opened, closed = (sessions_of(setting, kind) for kind in ("editor.opened", "editor.closed"))
    assert len(opened) == len(set(opened)) == 3
    assert closed == ([] if looks_on else opened[:1])
    for one in [*talks, *wires]:
        one.close()


def test_a_viewer_beside_an_operator_stays_one(setting: Setting) -> None:
    """They act at the same moments, on both processes: all that the device is told to do came from the operator."""
    shop = Workshop("pump")
    setting.connect(shop)
    operators = [setting.browser(web=number) for number in (0, 1)]
    viewers = [setting.browser("viewer", web=number) for number in (0, 1)]
    listening = [Talk(one, "/comms") for one in [*viewers, *operators]]

    def change(browser: Browser, who: str) -> list[int]:
        targets = [f"/up/{who}-{number}/1000" for number in range(10)]
        statuses = [browser("POST", target, content=shop.bytes_of(target)).status_code for target in targets]
        with browser.socket("/terminal") as wire:
            return [*statuses, int(head_of(wire).split()[1])]

    def look(browser: Browser) -> list[int]:
        return [browser("GET", "/").status_code for _ in range(10)]

    calls: list[Callable[[], Any]] = [lambda one=one: change(one, "operator") for one in operators]
    calls += [lambda one=one: change(one, "viewer") for one in viewers]
    calls += [lambda one=one: look(one) for one in viewers]
    done = at_once(calls)
    assert done == [[*[200] * 10, 101]] * 2 + [[403] * 11] * 2 + [[200] * 10] * 2
    assert len(shop.writes) == 20
    assert all("operator" in target for target in shop.writes)
    for talk in listening:
        talk.close()


def test_at_the_limit_of_a_device_people_are_told_so_and_another_device_is_free(setting: Setting) -> None:
    """64 streams of two people at two processes; the third hears that it is too much, and for how long."""
    device = setting.connect()
    other = setting.beside()
    other.connect(Workshop("fan"))
    crowd = [setting.browser("operator"), setting.browser("owner", web=1)]
    wires = [crowd[number % 2].dial("/") for number in range(64)]
    held: list[Served] = [device.requests.get(timeout=10) for _ in wires]
    third = setting.browser("viewer", web=1)
    refused = third("GET", "/")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert refused.headers["content-type"] == "text/html; charset=utf-8"
    assert "Too much at once" in refused.text
    assert "offline" not in refused.text
    with third.socket() as wire:
        assert head_of(wire).startswith("HTTP/1.1 503")
    assert other.browser(web=1)("GET", "/").text == "fan"
    assert setting.api("GET", f"/edge-nodes/{setting.device.id}/health").status_code == 200
    with pytest.raises(queue.Empty):
        device.requests.get(timeout=0.2)
    held[0].answer(b"one is free")
    with third.dial("/") as wire:
        device.requests.get(timeout=15).answer(b"again")
        assert head_of(wire).startswith("HTTP/1.1 200")
    for one in wires:
        one.close()


def test_one_person_leaves_room_for_another(setting: Setting) -> None:
    """However many sessions he has, at whatever processes."""
    device = setting.connect()
    greedy = [setting.browser("operator", web=number) for number in (0, 1)]
    wires = [greedy[number % 2].dial("/") for number in range(48)]
    held: list[Served] = [device.requests.get(timeout=10) for _ in wires]
    for one in greedy:
        refused = one("GET", "/")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    with setting.browser("owner", web=1).dial("/") as wire:
        device.requests.get(timeout=10).answer(b"there is room")
        assert head_of(wire).startswith("HTTP/1.1 200")
    held[0].answer(b"one is free")
    with greedy[0].dial("/") as wire:
        device.requests.get(timeout=15).answer(b"again")
        assert head_of(wire).startswith("HTTP/1.1 200")
    for one in wires:
        one.close()


def sessions_of(setting: Setting, kind: str) -> list[str]:
    return [one["editor_session_id"] for one in audit(setting, kind)]


def standstill(progress: Callable[[], int], seconds: float = 1.0) -> int:
    """What the progress is once it has been the same for a while."""
    latest, since = progress(), time.monotonic()
    while time.monotonic() - since < seconds or not latest:
        if (found := progress()) != latest:
            latest, since = found, time.monotonic()
        time.sleep(0.02)
    return latest
