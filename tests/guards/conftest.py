"""Guards look at billing as at the rest: where there is something to see, and with somebody to ask who is away."""

from collections.abc import Iterator

import pytest

from app.billing import operations
from config.settings import settings


@pytest.fixture(autouse=True)
def stripe_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without a key every route of money would answer that there is none, whoever asks for whose rows."""
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_of_the_guards")
    monkeypatch.setenv("STRIPE_API_BASE", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_of_the_guards")
    monkeypatch.setattr(operations, "WAIT_SECONDS", 0.05)
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()
