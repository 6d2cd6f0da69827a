"""The Stripe of `make run`: when it is started, what the platform is told, and that it knows no more than that."""

import io
from pathlib import Path

import pytest

from app.billing import metering
from config import local_stripe, supervisor
from config.launch.console import Terminal
from config.launch.program import Program
from config.launch.supervision import Supervisor
from config.launch.watchdog import Watchdog
from config.settings import load
from tests.config import parts
from tests.config.test_settings import PRODUCTION
from tests.platform import ROOT


def stand_in(folder: Path, environ: dict[str, str]) -> tuple[list[Program], dict[str, str]]:
    """What `make run` would start, and what it tells the platform."""
    running = Supervisor(Terminal(io.StringIO()), Watchdog(parts.environment(folder)))
    settings = load({"EDGEFLOW_DATA_DIR": str(folder), **environ})
    try:
        told = supervisor._stand_in_for_stripe(running, settings, folder, environ)
        return [part.program for part in running._parts], told
    finally:
        running.stop()


@pytest.mark.parametrize(
    "environ",
    [{"STRIPE_API_KEY": "sk_test_of_a_person"}, {"EDGEFLOW_BILLING": "off"}, PRODUCTION],
    ids=["a person's own account", "no billing", "production"],
)
def test_it_is_not_started_where_it_is_not_wanted(tmp_path: Path, environ: dict[str, str]) -> None:
    programs, told = stand_in(tmp_path, environ)
    assert programs == []
    assert told == environ


def test_without_a_key_the_platform_is_told_of_it_as_of_stripe(tmp_path: Path) -> None:
    (program,), told = stand_in(tmp_path, {})
    settings = load({"EDGEFLOW_DATA_DIR": str(tmp_path), **told})
    assert settings.sells
    assert settings.stripe_api_base == f"http://127.0.0.1:{program.command[program.command.index('--port') + 1]}"
    assert settings.stripe_api_key.startswith("sk_test_")
    assert settings.stripe_webhook_secret.startswith("whsec_")
    assert f"{settings.url}/api/v1/billing/webhooks/stripe" in program.command
    for secret in (settings.stripe_api_key, settings.stripe_webhook_secret):
        assert secret not in " ".join(program.command), "everybody on the machine can read that"
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "secrets").iterdir()} == {0}


def test_the_next_start_tells_the_same(tmp_path: Path) -> None:
    assert stand_in(tmp_path, {})[1] == stand_in(tmp_path, {})[1]


def test_it_has_the_meters_that_usage_is_reported_to() -> None:
    assert set(local_stripe.METERS) == set(metering.METERS)


def test_what_sells_does_not_know_it() -> None:
    """Else it could be made to please, where Stripe would not."""
    sources = [path for room in ("app", "workers", "scheduler") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 100
    assert [path for path in sources if "local_stripe" in path.read_text()] == []
