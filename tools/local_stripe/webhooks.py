"""Delivery of events: signed, tried again with growing pauses, and out of order where several are due."""

import hashlib
import hmac
import json
import random
import time

import gevent
import httpx
from gevent.pool import Pool

from tools.local_stripe.account import Account, public

_TIMEOUT = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 300.0
_MOST_ATTEMPTS = 30
_AT_ONCE = 8


def signature(secrets: list[str], body: bytes, at: int) -> str:
    """``t=…,v1=…``; one ``v1`` for each secret: while one is being replaced, Stripe signs under both."""
    signed = f"{at}.".encode() + body
    values = (hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets)
    return ",".join([f"t={at}", *(f"v1={value}" for value in values)])


class Deliverer:
    """Sends what is due. What is not told as delivered is sent again after a restart: at least once."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._pool = Pool(_AT_ONCE)
        self._sending: set[int] = set()
        self._client = httpx.Client(timeout=_TIMEOUT, trust_env=False)

    def run(self, pause: float = 0.05) -> None:
        while True:
            if self._account.webhook_url and not self._account.store.setting("webhooks", {}).get("hold"):
                self._send_due()
            gevent.sleep(pause)

    def _send_due(self) -> None:
        rows = self._account.store.db.execute(
            "SELECT seq, event, attempts FROM deliveries WHERE state = 'pending' AND due <= ?"
            " ORDER BY due, seq LIMIT 100",
            (time.time(),),
        ).fetchall()
        for seq, event, attempts in rows:
            if seq not in self._sending:
                self._sending.add(seq)
                self._pool.spawn(self._deliver, seq, event, attempts)

    def _deliver(self, seq: int, id: str, attempts: int) -> None:
        try:
            accepted = self._post(id)
            self._note(seq, id, attempts + 1, accepted)
        finally:
            self._sending.discard(seq)

    def _post(self, id: str) -> bool:
        event = self._account.store.get(id)
        body = json.dumps(public(event or {}), indent=2).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(self._account.webhook_secrets, body, int(time.time())),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        try:
            return self._client.post(self._account.webhook_url or "", content=body, headers=headers).is_success
        except (httpx.HTTPError, httpx.InvalidURL):
            return False  # noted by the caller, and delivered again

    def _note(self, seq: int, id: str, attempts: int, accepted: bool) -> None:
        store = self._account.store
        state = "delivered" if accepted else "pending" if attempts < _MOST_ATTEMPTS else "given_up"
        due = time.time() + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempts - 1))
        store.db.execute(
            "UPDATE deliveries SET attempts = ?, state = ?, due = ? WHERE seq = ?", (attempts, state, due, seq)
        )
        if accepted and (event := store.get(id)):
            store.put({**event, "pending_webhooks": 0})
        store.commit()

    def release(self) -> int:
        """Let go what was held: at random where disorder is asked for. Returns how many that is."""
        store = self._account.store
        settings = store.setting("webhooks", {})
        seqs = [row[0] for row in store.db.execute("SELECT seq FROM deliveries WHERE state = 'pending' ORDER BY seq")]
        if settings.get("shuffle"):
            random.shuffle(seqs)
        now = time.time()
        for place, seq in enumerate(seqs):
            # A minute ago and up, so that all are due at once and go in this order.
            store.db.execute("UPDATE deliveries SET due = ? WHERE seq = ?", (now - 60 + place / 1_000, seq))
        store.set("webhooks", {**settings, "hold": False})
        store.commit()
        return len(seqs)
