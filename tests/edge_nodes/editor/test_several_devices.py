"""Several devices' editors open at once, by one person and by several, their tunnels at different web processes."""

from collections.abc import Iterator
from http.cookiejar import Cookie

import httpx
import pytest

from app import db
from app.edge_nodes.editor import sessions
from tests.e2e.conftest import until
from tests.edge_nodes.editor.conftest import Browser, Setting, ended, head_of
from tests.edge_nodes.editor.several import OneBrowser, Talk, Workshop, at_once, audit, download, marked, rest_of
from tests.edge_nodes.editor.test_sessions import change, sign_out, signed_in
from tests.platform import TLS

pytestmark = pytest.mark.xdist_group("editors")

NAMES = ("pump", "fan", "oven")


class Street:
    """Three devices of one organization: the first two at the first web process, the third at the second."""

    def __init__(self, first: Setting) -> None:
        self.settings = [first, first.beside(), first.beside()]
        self.shops = [Workshop(name) for name in NAMES]
        places = zip(self.settings, self.shops, (0, 0, 1), strict=True)
        self.devices = [one.connect(shop, web=web) for one, shop, web in places]


@pytest.fixture
def street(setting: Setting) -> Street:
    return Street(setting)


@pytest.fixture
def person() -> Iterator[OneBrowser]:
    made = OneBrowser()
    yield made
    made.close()


@pytest.mark.parametrize("web", [0, 1], ids=["the first process", "the second process"])
def test_one_browser_has_each_devices_editor_and_a_cookie_for_each(
    street: Street, person: OneBrowser, web: int
) -> None:
    origins = [person.open(one.link(web=web)) for one in street.settings]
    jar: list[Cookie] = list(person.http.cookies.jar)
    assert sorted(one.domain for one in jar) == sorted(httpx.URL(origin).host for origin in origins)
    assert not any(one.domain_specified for one in jar)
    size = 500_000

    def look(origin: str, shop: Workshop) -> bool:
        answers = [person.http.get(f"{origin}/down/me-{number}/{size}") for number in range(3)]
        return all(one.content == shop.bytes_of(f"/down/me-{number}/{size}") for number, one in enumerate(answers))

    calls = [lambda one=one, shop=shop: look(one, shop) for one, shop in zip(origins, street.shops, strict=True)]
    assert at_once(calls * 2) == [True] * 6
    told = [person.sent[httpx.URL(origin).host] - {""} for origin in origins]
    assert [len(one) for one in told] == [1, 1, 1]
    assert len(set.union(*told)) == 3
    for device in street.devices:
        assert not any("edgeflow" in str(served.request["headers"]) for served in list(device.requests.queue))


def test_a_cookie_of_one_device_opens_no_other_however_many_are_open(street: Street) -> None:
    browsers = [one.browser(web=number % 2) for number, one in enumerate(street.settings)]
    for browser, name in zip(browsers, NAMES, strict=True):
        assert browser("GET", "/").text == name
    for number, browser in enumerate(browsers):
        others = [one.cookie for place, one in enumerate(browsers) if place != number]
        for stolen in (others[0], others[1], "; ".join(others)):
            assert browser("GET", "/", headers={"Cookie": stolen}).status_code == 403
        assert browser("GET", "/", headers={"Cookie": "; ".join([*others, browser.cookie])}).text == NAMES[number]


def test_sockets_of_all_devices_at_once_bring_each_its_own(street: Street) -> None:
    """Two people, three devices, two processes: twelve sockets, each said other bytes."""
    talks = [
        Talk(one.browser(web=web)) for one in street.settings for web in (0, 1) for _person in range(2)
    ]  # fmt: skip
    assert [talk.device for talk in talks] == [f"{name}\n".encode() for name in NAMES for _ in range(4)]
    words = [marked(f"socket-{number}", 200_000) for number in range(len(talks))]
    calls = [lambda talk=talk, said=said: talk.say(said) == said for talk, said in zip(talks, words, strict=True)]
    assert at_once(calls) == [True] * 12
    for talk in talks:
        talk.close()


@pytest.mark.parametrize("gone", [0, 2], ids=["at the first process", "at the second process"])
@pytest.mark.parametrize("web", [0, 1], ids=["seen from the first", "seen from the second"])
def test_a_device_that_is_cut_off_takes_its_own_streams_and_no_others(street: Street, gone: int, web: int) -> None:
    browsers = [one.browser(web=web) for one in street.settings]
    talks = [Talk(one) for one in browsers]
    target = "/slow/me/600000"
    wires = [one.dial(target) for one in browsers]
    until(lambda: all(shop.given.get(target, 0) > 2_000 for shop in street.shops), timeout=15)
    street.devices[gone].close()
    assert ended(talks[gone].wire, 8)
    assert len(rest_of(wires[gone])) < 600_000
    staying = [number for number in range(3) if number != gone]
    for number in staying:
        assert talks[number].say(marked("stays", 50_000)) == marked("stays", 50_000)
        street.shops[number].hurry.set()
    for number in staying:
        head_of(wires[number])
        got = b""
        while len(got) < 600_000:
            got += wires[number].recv(65536)
        assert got == street.shops[number].bytes_of(target)
        assert browsers[number]("GET", "/").text == NAMES[number]
    assert until(lambda: browsers[gone]("GET", "/").status_code == 503, timeout=15)
    street.settings[gone].connect(street.shops[gone], web=1)
    assert until(lambda: browsers[gone]("GET", "/").text == NAMES[gone], timeout=15)  # with the cookie that it had
    for one in [*talks, *wires]:
        one.close()


def test_who_signs_out_is_out_of_every_device_and_others_in_all_of_theirs(street: Street) -> None:
    headers, user = signed_in(street.settings[0])
    leaving = [Talk(one.browser(web=number % 2, headers=headers)) for number, one in enumerate(street.settings)]
    staying = [Talk(one.browser(web=number % 2)) for number, one in enumerate(street.settings)]
    sign_out(street.settings[0], headers, user)
    assert at_once([lambda talk=talk: ended(talk.wire, 8) for talk in leaving]) == [True] * 3
    for talk in staying:
        assert talk.say(b"still here") == b"still here"
        talk.close()
    for talk in leaving:
        talk.close()


def test_the_journal_tells_who_opened_which_editor_and_what_ended_it(street: Street) -> None:
    """Three people, three devices, four ends: each session has its one line of each kind, with its own bytes.

    Who and where is told also when the key that opened it, or the device, is no more.
    """
    first, second, third = street.settings
    headers, user = signed_in(first)
    mail = httpx.get(f"{first.gateways.url()}/api/v1/auth/profile", headers=headers, verify=TLS).json()
    visits: list[tuple[Setting, Browser, int]] = [
        (first, first.browser(headers=headers), 1_000),
        (second, second.browser("viewer", web=1), 2_000),
        (third, third.browser("operator"), 3_000),
        (third, third.browser("owner", web=1), 4_000),
    ]
    got = at_once([lambda one=one, size=size: download(one, f"/down/me/{size}") for _, one, size in visits])
    assert [len(one) for one in got] == [size for *_, size in visits]
    opened = audit(first, "editor.opened")
    assert [(one["device_id"], one["role"]) for one in opened] == [
        (first.device.id, "operator"), (second.device.id, "viewer"), (third.device.id, "operator"),
        (third.device.id, "owner"),
    ]  # fmt: skip
    talks = [Talk(one, "/comms") for _, one, _ in visits]
    sign_out(first, headers, user)
    change(first.org_id, "UPDATE devices SET disabled_at = now() WHERE id = :device", device=second.device.id)
    change(first.org_id, "DELETE FROM api_keys WHERE role = 'operator'")
    assert at_once([lambda talk=talk: ended(talk.wire, 8) for talk in talks[:3]]) == [True] * 3
    assert talks[3].say(b"still") == b"still"
    closed = until(lambda: len(found := audit(first, "editor.closed")) == 3 and found, timeout=15)
    by_session = {one["editor_session_id"]: one for one in closed}
    told = [by_session.get(one["editor_session_id"]) for one in opened]
    assert told[3] is None
    names = [len(f"{name}\n") for name in NAMES]
    assert [(one["reason"], one["device_id"], one["bytes_in"]) for one in told if one] == [
        ("signed out", first.device.id, 1_000 + names[0]),
        ("device disabled", second.device.id, 2_000 + names[1]),
        ("API key ended", third.device.id, 3_000 + names[2]),
    ]
    assert [one["actor"] for one in told if one] == [one["by"] for one in opened[:3]]
    assert mail["email"] in opened[0]["by"]
    change(first.org_id, "DELETE FROM devices WHERE id = :device", device=third.device.id)
    assert ended(talks[3].wire, 8)
    last = until(lambda: len(found := audit(first, "editor.closed")) == 4 and found[-1], timeout=15)
    assert (last["reason"], last["device_id"]) == ("device deleted", third.device.id)
    assert last["actor"] == "api_key:test-owner" == opened[3]["by"]
    with db.transaction(system=True):
        sessions.end_all()
    assert len(audit(first, "editor.closed")) == 4
    for talk in talks:
        talk.close()
