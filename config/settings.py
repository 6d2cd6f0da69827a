"""Configuration: one frozen object, read once from the environment.

Every field is one variable of the README's table (a test compares the two). A malformed value, or one that production
needs and lacks, raises ``SettingsError`` with one line that names the variable.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from email.utils import parseaddr
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from limits import parse as parse_rate

T = TypeVar("T")
N = TypeVar("N", int, float)


class SettingsError(ValueError):
    """A value that cannot be used; the message names the variable."""


def _text(raw: str) -> str:
    return raw


def _converted(convert: Callable[[str], T], raw: str, fault: str) -> T:
    """``raw`` converted, or ValueError with a fault of our own words: a library's may quote what is secret."""
    try:
        return convert(raw)
    except ValueError:
        raise ValueError(fault) from None


def _between(convert: Callable[[str], N], kind: str, low: N, high: N) -> Callable[[str], N]:
    def parse(raw: str) -> N:
        value = _converted(convert, raw, f"must be {kind}")
        if not low <= value <= high:
            raise ValueError(f"must be between {low:g} and {high:g}")
        return value

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    return _between(float, "a number", low, high)


def _integer(low: int, high: int) -> Callable[[str], int]:
    return _between(int, "a whole number", low, high)


def _flag(raw: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if raw.lower() not in values:
        raise ValueError("must be 1 or 0")
    return values[raw.lower()]


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw not in allowed:
            raise ValueError("must be one of " + ", ".join(allowed))
        return raw

    return parse


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        parts = _converted(urlsplit, raw, "is no URL")
        _converted(
            lambda _: parts.port,
            raw,
            "its port is no number (a `/`, `?` or `#` in the password is written %2F, %3F, %23)",
        )
        if parts.scheme not in schemes or not (parts.hostname or parts.path.strip("/")):
            raise ValueError("must be a URL like " + schemes[0] + "://…")
        return raw

    return parse


def _rate(raw: str) -> str:
    _converted(parse_rate, raw, "must be like `600 per minute`")
    return raw


def _secret(raw: str) -> str:
    if len(raw) < 32:
        raise ValueError("must be at least 32 characters")
    return raw


def _env(name: str, parse: Callable[[str], T], default: T, doc: str, *, secret: bool = False) -> T:
    """A field that is read from the variable ``name``; ``doc`` is its line in the README."""
    metadata = {"env": name, "parse": parse, "doc": doc, "secret": secret}
    return field(default=default, metadata=metadata, repr=not secret)


_HTTP = _url("http", "https")


def _editor_url(raw: str) -> str:
    label, _, domain = raw.partition("://")[2].partition(".")
    if label != "{device}" or not domain or "{" in domain:
        raise ValueError("must be like `https://{device}.edit.example.com`")
    parts = urlsplit(_HTTP(raw.replace("{device}", "device")))
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be an origin, like `https://{device}.edit.example.com`: nothing behind the host")
    return raw.lower()


def _smtp(raw: str) -> str:
    url = _url("smtp", "smtps")(raw)
    options = parse_qs(urlsplit(url).query, keep_blank_values=True)
    if options.keys() - {"starttls"} or options.get("starttls", ["auto"])[-1] not in ("always", "never", "auto"):
        raise ValueError("its only option is `?starttls=` always, never or auto")
    return url


def _mailbox(raw: str) -> str:
    address = parseaddr(raw)[1]
    if not raw.isprintable() or not all(address.rpartition("@")):
        raise ValueError("must be like `EdgeFlow <alerts@example.com>`")
    return raw


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every process of the platform is told from outside."""

    env: str = _env(
        "EDGEFLOW_ENV",
        _choice("development", "production"),
        "development",
        "`production` demands the secrets and URLs below and logs JSON",
    )
    data_dir: Path = _env(
        "EDGEFLOW_DATA_DIR", Path, Path(".edgeflow"), "embedded servers' data and development secrets"
    )
    host: str = _env("EDGEFLOW_HOST", _text, "127.0.0.1", "address the web processes listen on")
    port: int = _env("EDGEFLOW_PORT", _integer(1, 65535), 8080, "port the web processes listen on")
    public_url: str = _env("EDGEFLOW_PUBLIC_URL", _HTTP, "", "address that users see; empty: host and port")
    editor_url: str = _env(
        "EDGEFLOW_EDITOR_URL",
        _editor_url,
        "",
        "origin of devices' editors, like `https://{device}.edit.example.com`; empty: none in production, else "
        "`http://{device}.edit.localhost:<port>`",
    )
    database_url: str = _env(
        "DATABASE_URL",
        _url("postgresql"),
        "",
        "PostgreSQL 16 or newer; empty: embedded (not in production)",
        secret=True,
    )
    database_owner_url: str = _env(
        "DATABASE_OWNER_URL",
        _url("postgresql"),
        "",
        "login that owns the schema and migrates; empty: `DATABASE_URL`",
        secret=True,
    )
    redis_url: str = _env(
        "REDIS_URL",
        _url("redis", "rediss", "unix"),
        "",
        "Redis 7 or Valkey 8, or newer; empty: embedded (not in production)",
        secret=True,
    )
    database_pool: int = _env("EDGEFLOW_DATABASE_POOL", _integer(1, 500), 20, "database connections of one process")
    database_timeout: float = _env(
        "EDGEFLOW_DATABASE_TIMEOUT",
        _number(1, 600),
        10.0,
        "seconds that a request's statement may take, then 503 (workers: 60 s)",
    )
    secret_key: str = _env(
        "EDGEFLOW_SECRET_KEY",
        _secret,
        "",
        "hashes keys and tokens, encrypts alert channels; required in production, else generated once",
        secret=True,
    )
    jwt_secret_key: str = _env(
        "EDGEFLOW_JWT_SECRET_KEY",
        _secret,
        "",
        "signs access tokens; required in production, else generated once",
        secret=True,
    )
    access_token_seconds: int = _env("EDGEFLOW_ACCESS_TOKEN_SECONDS", _integer(1, 900), 900, "life of an access token")
    refresh_token_days: int = _env("EDGEFLOW_REFRESH_TOKEN_DAYS", _integer(1, 365), 30, "life of a refresh token")
    web_workers: int = _env("EDGEFLOW_WEB_WORKERS", _integer(1, 64), 2, "web processes on this host")
    worker_processes: int = _env("EDGEFLOW_WORKER_PROCESSES", _integer(1, 64), 1, "worker processes on this host")
    worker_threads: int = _env("EDGEFLOW_WORKER_THREADS", _integer(1, 64), 8, "threads of one worker process")
    max_tunnels: int = _env(
        "EDGEFLOW_MAX_TUNNELS", _integer(10, 200_000), 12_000, "connections (tunnels and requests) of one web process"
    )
    proxy_hops: int = _env(
        "EDGEFLOW_PROXY_HOPS", _integer(0, 10), 0, "reverse proxies in front whose `X-Forwarded-For` is believed"
    )
    rate_limit_ip: str = _env("EDGEFLOW_RATE_LIMIT_IP", _rate, "600 per minute", "default limit of one address")
    rate_limit_auth: str = _env(
        "EDGEFLOW_RATE_LIMIT_AUTH", _rate, "20 per minute", "sign-in, registration and refresh, by address"
    )
    rate_limit_user: str = _env("EDGEFLOW_RATE_LIMIT_USER", _rate, "60 per minute", "auth and profile, by user")
    rate_limit_org: str = _env("EDGEFLOW_RATE_LIMIT_ORG", _rate, "6000 per minute", "the rest, by organization")
    rate_limits: bool = _env("EDGEFLOW_RATE_LIMITS", _flag, True, "`0` turns rate limits off")
    offline_after: float = _env(
        "EDGEFLOW_OFFLINE_AFTER", _number(1, 3600), 75.0, "seconds of silence after which a device is offline"
    )
    heartbeat_interval: int = _env(
        "EDGEFLOW_HEARTBEAT_INTERVAL", _integer(1, 600), 30, "seconds between heartbeats, as told to v2 agents"
    )
    redeliver_seconds: float = _env(
        "EDGEFLOW_REDELIVER_SECONDS",
        _number(1, 600),
        20.0,
        "an unanswered rollout command is sent again, under its id, after this",
    )
    telemetry_inbox_mb: int = _env(
        "EDGEFLOW_TELEMETRY_INBOX_MB",
        _integer(1, 1_000_000_000),
        10_240,
        "size of telemetry that waits for a worker (MiB, in PostgreSQL) from which on devices keep theirs",
    )
    max_metric_names: int = _env(
        "EDGEFLOW_MAX_METRIC_NAMES",
        _integer(1, 1_000_000),
        2_000,
        "names of metrics that an organization may have; points of more are refused",
    )
    max_series: int = _env(
        "EDGEFLOW_MAX_SERIES",
        _integer(1, 100_000_000),
        200_000,
        "series (device, name, tags) that an organization may have; points of more are refused",
    )
    billing: bool = _env("EDGEFLOW_BILLING", _flag, True, "`off`: no quotas, and no money: for one's own use")
    plans_file: Path = _env(
        "EDGEFLOW_PLANS_FILE",
        Path,
        Path("config/plans.toml"),
        "what each plan costs and includes, with Stripe's price ids",
    )
    stripe_api_key: str = _env(
        "STRIPE_API_KEY", _text, "", "Stripe's secret key; empty: no billing (`make run`: a local server)", secret=True
    )
    stripe_api_base: str = _env("STRIPE_API_BASE", _HTTP, "https://api.stripe.com", "where Stripe's API is")
    stripe_webhook_secret: str = _env(
        "STRIPE_WEBHOOK_SECRET", _text, "", "signs Stripe's events; two, with a comma, while one replaces the other",
        secret=True,
    )  # fmt: skip
    smtp_url: str = _env(
        "EDGEFLOW_SMTP_URL",
        _smtp,
        "",
        "mail server for alerts, `smtp[s]://[user:password@]host[:port]`; empty: mail fails (`make run`: is caught)",
        secret=True,
    )
    mail_from: str = _env("EDGEFLOW_MAIL_FROM", _mailbox, "EdgeFlow <edgeflow@localhost>", "who alert mails come from")
    webhook_private: bool = _env(
        "EDGEFLOW_WEBHOOK_PRIVATE",
        _flag,
        False,
        "`1`: webhooks may go to private addresses (default of `make run` in development)",
    )
    metrics_token: str = _env(
        "EDGEFLOW_METRICS_TOKEN", _text, "", "bearer token of `/internal/metrics`; empty: loopback only", secret=True
    )
    log_level: str = _env(
        "EDGEFLOW_LOG_LEVEL", _choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "least level logged"
    )
    log_format: str = _env(
        "EDGEFLOW_LOG_FORMAT", _choice("auto", "json", "text"), "auto", "`auto`: JSON in production, text else"
    )
    pg_bin: str = _env(
        "EDGEFLOW_PG_BIN", _text, "", "folder of PostgreSQL programs to run embedded; empty: those of the wheel"
    )
    demo: bool = _env("EDGEFLOW_DEMO", _flag, True, "`0`: `make run` starts without the demo fleet")

    @property
    def sells(self) -> bool:
        """Whether there is somebody to pay."""
        return self.billing and bool(self.stripe_api_key)

    @property
    def production(self) -> bool:
        return self.env == "production"

    @property
    def logs_json(self) -> bool:
        return self.log_format == "json" or (self.log_format == "auto" and self.production)

    @property
    def url(self) -> str:
        """The address of the platform as users see it, without a trailing slash."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def editors(self) -> str:
        """Where devices' editors are, with ``{device}`` for the device's id; empty: nowhere."""
        return self.editor_url or ("" if self.production else f"http://{{device}}.edit.localhost:{self.port}")

    @property
    def owner_url(self) -> str:
        return self.database_owner_url or self.database_url


_REQUIRED_IN_PRODUCTION = ("secret_key", "jwt_secret_key", "database_url", "redis_url")
_GENERATED = ("secret_key", "jwt_secret_key")


def load(environ: Mapping[str, str]) -> Settings:
    """The settings of an environment. Raises SettingsError with one line that names the variable.

    In development, missing secrets are generated once into ``<data_dir>/secrets/`` (mode 0600) and read from there.
    """
    values: dict[str, Any] = {}
    for item in fields(Settings):
        raw = environ.get(item.metadata["env"], "").strip()
        if raw:
            values[item.name] = _parse(item.metadata, raw)
    settings = Settings(**values)
    if settings.production:
        _demand(settings)
        return settings
    missing = {name: _generated(settings.data_dir, name) for name in _GENERATED if not getattr(settings, name)}
    return Settings(**{**values, **missing})


def _parse(metadata: Mapping[str, Any], raw: str) -> Any:
    try:
        return metadata["parse"](raw)
    except ValueError as error:
        shown = "the given value" if metadata["secret"] else repr(raw)
        raise SettingsError(f"{metadata['env']}: {shown} is not valid: {error}") from None


def _demand(settings: Settings) -> None:
    for item in fields(Settings):
        if item.name in _REQUIRED_IN_PRODUCTION and not getattr(settings, item.name):
            raise SettingsError(f"{item.metadata['env']}: required when EDGEFLOW_ENV=production")


def _generated(data_dir: Path, name: str) -> str:
    path = data_dir / "secrets" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Written aside and linked: of processes that start together one wins, and nobody reads half a secret.
        draft = path.with_name(f"{name}.{os.getpid()}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(48))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    value = path.read_text().strip()
    if len(value) < 32:
        raise SettingsError(f"{path}: the generated secret is cut short; delete the file")
    return value


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return load(os.environ)


def settings_or_exit() -> Settings:
    """For entry points: ``settings``, or the end of the process with the one line that tells why (code 1)."""
    try:
        return settings()
    except SettingsError as error:
        raise SystemExit(f"cannot start: {error}") from None
