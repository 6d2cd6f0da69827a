"""What alerts are told to, and that it may stand on this machine."""

from collections.abc import Iterator

import pytest

from app.alerts.channels import webhook
from tests.alerts import rows
from tests.alerts.receivers import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


@pytest.fixture
def private_targets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Webhooks may go to private addresses, as an operator can allow."""
    with rows.settings_with(monkeypatch, webhook, webhook_private=True):
        yield
