"""Billing is tested against a local Stripe: a process of its own, with a port and a folder of its own."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app import db
from config.settings import settings
from tests.billing.helpers_routes import Buyer, worker
from tests.billing.local import VISA, LocalStripe, Organization


@pytest.fixture(scope="session")
def stripe_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStripe]:
    server = LocalStripe(tmp_path_factory.mktemp("stripe"))
    yield server
    server.stop()


@pytest.fixture
def stripe(stripe_server: LocalStripe, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStripe]:
    """A local Stripe that this process's settings name; it has no faults."""
    for name, value in stripe_server.environ.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    stripe_server.quiet()
    yield stripe_server
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def owner(org: UUID, stripe: LocalStripe) -> Organization:
    """A fresh organization that can buy."""
    return Organization(org, stripe)


@pytest.fixture
def subscriber(owner: Organization) -> Organization:
    """One that has bought the plan Pro; its requests to Stripe are forgotten."""
    owner.run("subscription.create", **VISA)
    owner.stripe.quiet()
    return owner


@pytest.fixture
def buyer(app: Any, stripe: LocalStripe) -> Iterator[Buyer]:
    """Somebody who has just signed up, and a worker for what he asks, not for what other tests have left undone."""
    with db.transaction(system=True) as session:
        session.execute(text("UPDATE billing_accounts SET synced = wanted"))
    with worker():
        yield Buyer(app, stripe)
