"""Who may: a ticket opens once, a cookie opens its own device's editor, and what ends a session ends it at once."""

import base64
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from app import db
from app.edge_nodes.editor import sessions
from tests import make
from tests.e2e.conftest import until
from tests.edge_nodes.editor.conftest import SWITCH, Browser, Served, Setting, ended, head_of
from tests.platform import TLS

pytestmark = pytest.mark.xdist_group("editors")


def echo(served: Served) -> None:
    """Answers requests with their method, and WebSockets with what they send."""
    if not served.request["upgrade"]:
        served.answer(served.request["method"].encode())
        return
    served.head(101, *SWITCH)
    while True:
        frame = served.next(timeout=60)
        if frame["type"] == "cancel" or frame.get("end"):
            return
        if frame["type"] == "chunk":
            served.send("credit", bytes=len(base64.b64decode(frame["data"])))
            served.send("chunk", data=frame["data"], end=False)


def change(org_id: UUID, statement: str, **values: Any) -> None:
    with db.transaction(org_id) as session:
        session.execute(text(statement), {"org": org_id, **values})


def journal(org_id: UUID, kind: str) -> list[dict[str, Any]]:
    with db.transaction(org_id) as session:
        rows = session.execute(text("SELECT fields FROM log_entries WHERE kind = :kind ORDER BY id"), {"kind": kind})
        return [row.fields for row in rows]


def test_a_ticket_opens_once_of_a_twenty_at_once(setting: Setting) -> None:
    setting.connect(echo)
    link = setting.link()
    browsers = [Browser(setting.gateways, setting.device.id, number % 2) for number in range(20)]
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda one=one: statuses.append(one.open(link).status_code)) for one in browsers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [303] + 19 * [403]
    assert len(journal(setting.org_id, "editor.opened")) == 1
    for one in browsers:
        one.close()


def test_a_ticket_opens_within_a_minute_and_its_own_device_only(setting: Setting) -> None:
    setting.connect(echo)
    other, _key = make.device(setting.org_id)
    elsewhere = Browser(setting.gateways, other.id)
    link = setting.link()
    assert elsewhere.open(link).status_code == 403
    change(setting.org_id, "UPDATE editor_sessions SET ticket_expires_at = now() - interval '1 second'")
    late = Browser(setting.gateways, setting.device.id).open(link)
    assert late.status_code == 403
    assert "Open the editor again" in late.text
    assert "set-cookie" not in late.headers


def test_a_cookie_opens_its_own_device_only_also_among_others_of_its_name(setting: Setting) -> None:
    setting.connect(echo)
    browser = setting.browser()
    other, _key = make.device(setting.org_id)
    elsewhere = Browser(setting.gateways, other.id)
    elsewhere.http.headers["Cookie"] = browser.cookie
    assert elsewhere("GET", "/").status_code == 403
    browser.http.headers["Cookie"] = f"edgeflow_editor=tossed; a=b; {browser.cookie}; edgeflow_editor=tossed"
    assert browser("GET", "/").text == "GET"
    browser.http.headers["Cookie"] = "edgeflow_editor=tossed"
    assert browser("GET", "/").status_code == 403


def test_without_a_cookie_nothing_reaches_the_device(setting: Setting) -> None:
    device = setting.connect(echo)
    stranger = Browser(setting.gateways, setting.device.id)
    for method in ("GET", "HEAD", "POST"):
        assert stranger(method, "/").status_code == 403
    assert device.requests.empty()


def test_an_editors_origin_serves_nothing_of_the_api_and_the_apis_no_editor(setting: Setting) -> None:
    seen: list[str] = []

    def serve(served: Served) -> None:
        seen.append(served.request["target"])
        served.answer(b"of the device")

    setting.connect(serve)
    browser = setting.browser()
    for path in ("/api/v1/devices", "/healthz", "/internal/metrics", "/tunnel"):
        assert browser("GET", path, headers={"X-API-Key": setting.keys["owner"]}).text == "of the device"
    assert len(seen) == 4
    assert browser("GET", "/__edgeflow/anything").status_code == 404
    there = httpx.get(setting.gateways.url() + "/", headers={"Cookie": browser.cookie}, verify=TLS)
    assert there.status_code == 404
    assert there.json()["code"] == "NOT_FOUND"


def test_a_viewer_reads_and_listens_only(setting: Setting) -> None:
    device = setting.connect(echo)
    viewer = setting.browser("viewer")
    assert viewer("GET", "/flows").text == "GET"
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert viewer(method, "/flows", content=b"{}").status_code == 403
    assert viewer("GET", "/flows", content=b"{}", headers={"Origin": viewer.origin}).status_code == 403
    with viewer.socket("/comms") as wire:
        assert head_of(wire).startswith("HTTP/1.1 101")
    with viewer.socket("/terminal") as wire:
        assert head_of(wire).startswith("HTTP/1.1 403")
    assert {served.request["method"] for served in device.requests.queue} == {"GET"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://00000000-0000-4000-8000-000000000000.edit.localhost"},
        {"Origin": "null"},
    ],
    ids=["none", "another site", "a sibling", "opaque"],
)
def test_another_sites_page_changes_and_opens_nothing(setting: Setting, headers: dict[str, str]) -> None:
    device = setting.connect(echo)
    browser = setting.browser()
    with browser.dial("/flows", method="POST", Content_Length="0", **headers) as wire:
        assert head_of(wire).startswith("HTTP/1.1 403")
    with browser.socket(**headers) as wire:
        assert head_of(wire).startswith("HTTP/1.1 403")
    assert device.requests.empty()


def test_another_sites_page_embeds_nothing_but_may_link(setting: Setting) -> None:
    setting.connect(echo)
    browser = setting.browser()
    for site in ("same-site", "cross-site"):
        fetched = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}
        framed = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
        linked = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert [browser("GET", "/", headers=one).status_code for one in (fetched, framed, linked)] == [403, 403, 200]


def signed_in(setting: Setting) -> tuple[dict[str, str], UUID]:
    email = f"{make.uuid4().hex}@example.com"
    body = {"email": email, "password": "correct horse battery", "name": "Ada", "organization_name": "Hers"}
    answer = httpx.post(f"{setting.gateways.url()}/api/v1/auth/register", json=body, timeout=20, verify=TLS)
    assert answer.status_code == 201, answer.text
    user_id = UUID(answer.json()["user"]["id"])
    join = "INSERT INTO memberships (org_id, user_id, role) VALUES (:org, :user, 'operator')"
    change(setting.org_id, join, user=user_id)
    token = answer.json()["access_token"]
    return {"Authorization": f"Bearer {token}", "X-Organization-Id": str(setting.org_id)}, user_id


def sign_out(setting: Setting, headers: dict[str, str], _user: UUID) -> None:
    answer = setting.api("POST", "/auth/logout", headers=headers)
    assert answer.status_code in (200, 204), answer.text


def lose_membership(setting: Setting, _headers: Any, user_id: UUID) -> None:
    answer = setting.api("DELETE", f"/organizations/{setting.org_id}/members/{user_id}", "owner")
    assert answer.status_code == 204, answer.text


def become_viewer(setting: Setting, _headers: Any, user_id: UUID) -> None:
    path = f"/organizations/{setting.org_id}/members/{user_id}"
    assert setting.api("PUT", path, "owner", json={"role": "viewer"}).status_code == 200


def disable(setting: Setting, _headers: Any, _user: UUID) -> None:
    change(setting.org_id, "UPDATE devices SET disabled_at = now()")  # alone: its tunnel, too, would be closed


def delete(setting: Setting, _headers: Any, _user: UUID) -> None:
    change(setting.org_id, "DELETE FROM devices")


def grow_idle(setting: Setting, _headers: Any, _user: UUID) -> None:
    change(setting.org_id, "UPDATE editor_sessions SET last_used_at = now() - interval '31 minutes'")


def grow_old(setting: Setting, _headers: Any, _user: UUID) -> None:
    change(setting.org_id, "UPDATE editor_sessions SET expires_at = now() - interval '1 second'")


ENDS = [
    (sign_out, "signed out"), (lose_membership, "no member any more"), (become_viewer, None),
    (disable, "device disabled"), (delete, "device deleted"), (grow_idle, "idle"), (grow_old, "time is up"),
]  # fmt: skip


@pytest.mark.parametrize("web", [0, 1], ids=["the process with the tunnel", "another process"])
@pytest.mark.parametrize(("end", "reason"), ENDS, ids=[end.__name__ for end, _reason in ENDS])
def test_what_ends_a_session_closes_its_open_sockets(
    setting: Setting, end: Callable[..., None], reason: str | None, web: int
) -> None:
    setting.connect(echo)
    headers, user_id = signed_in(setting)
    browser = setting.browser(web=web, headers=headers)
    with browser.socket("/terminal") as wire:
        assert head_of(wire).startswith("HTTP/1.1 101")
        wire.sendall(b"hello")
        assert wire.recv(100) == b"hello"
        end(setting, headers, user_id)
        began = time.monotonic()
        assert ended(wire, 4)
        assert time.monotonic() - began < 2
    again = browser("POST", "/")
    assert again.status_code == 403
    if reason:
        told = until(lambda: journal(setting.org_id, "editor.closed"), timeout=3)
        assert [one["reason"] for one in told] == [reason]
        assert told[0]["actor"].startswith("user:")
        assert (told[0]["bytes_in"], told[0]["bytes_out"]) == (5, 5)


def test_a_session_outlives_the_web_process(setting: Setting) -> None:
    setting.connect(echo)
    browser = setting.browser(web=1)
    assert browser("GET", "/").text == "GET"
    setting.gateways.restart("web1")
    setting.gateways.wait_ready()
    assert browser("GET", "/").text == "GET"


def test_a_key_that_is_deleted_ends_what_it_opened(setting: Setting) -> None:
    setting.connect(echo)
    browser = setting.browser()
    with browser.socket() as wire:
        head_of(wire)
        change(setting.org_id, "DELETE FROM api_keys WHERE role = 'operator'")
        assert ended(wire, 2)
    assert browser("GET", "/").status_code == 403
    told = until(lambda: journal(setting.org_id, "editor.closed"), timeout=3)
    assert [one["reason"] for one in told] == ["API key ended"]


def test_a_session_that_nobody_uses_any_more_is_told_to_have_ended(setting: Setting) -> None:
    setting.connect(echo)
    setting.browser()
    change(setting.org_id, "UPDATE editor_sessions SET last_used_at = now() - interval '40 minutes'")
    with db.transaction(system=True):
        assert sessions.end_all() >= 1
    assert [one["reason"] for one in journal(setting.org_id, "editor.closed")] == ["idle"]
    with db.transaction(system=True):
        assert sessions.end_all() == 0


def test_other_peoples_sessions_go_on(setting: Setting) -> None:
    setting.connect(echo)
    headers, _user = signed_in(setting)
    leaving, staying = setting.browser(headers=headers), setting.browser()
    with leaving.socket() as gone, staying.socket() as there:
        head_of(gone), head_of(there)
        sign_out(setting, headers, _user)
        assert ended(gone, 3)
        there.sendall(b"still here")
        assert there.recv(100) == b"still here"
