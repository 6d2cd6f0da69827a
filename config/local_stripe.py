"""The Stripe of ``make run``: who has no key of Stripe's own can subscribe, pay and be declined all the same.

It is a server beside the platform, which knows of it what it would know of Stripe: a key, an address, a secret.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from config.launch import host
from config.launch.program import Program
from config.settings import Settings

METERS = ("edgeflow_device_seconds", "edgeflow_commands", "edgeflow_deployments", "edgeflow_points")
"""Event names: what a person makes once in Stripe's dashboard, for the usage that is reported there."""


def wanted(settings: Settings) -> bool:
    """Whether there is billing, nobody gave a key, and nobody real is to pay."""
    return settings.billing and not settings.production and not settings.stripe_api_key


def platform_environment(data_dir: Path, port: int) -> dict[str, str]:
    """What web, worker and scheduler are told: the same at every start, the secrets from private files."""
    return {
        "STRIPE_API_KEY": f"sk_test_{host.kept_secret(data_dir, 'local_stripe_key')}",
        "STRIPE_API_BASE": f"http://127.0.0.1:{port}",
        "STRIPE_WEBHOOK_SECRET": f"whsec_{host.kept_secret(data_dir, 'local_stripe_webhook')}",
    }


def program(port: int, data_dir: Path, settings: Settings, cwd: Path, environment: Mapping[str, str]) -> Program:
    """What the supervisor runs; ``environment`` is the platform's."""
    webhook = f"{host.local_url(settings.host, settings.port)}/api/v1/billing/webhooks/stripe"
    command = [sys.executable, "-m", "tools.local_stripe", "--port", str(port)]
    command += ["--data", str(data_dir / "local_stripe.sqlite"), "--webhook", webhook]
    command += ["--plans", str(settings.plans_file), *(f"--meter={name}" for name in METERS)]
    return Program(name="stripe", command=command, cwd=cwd, environment=environment)
