"""Keys and tokens: 256 random bits, stored only as HMAC-SHA256 (never argon2: a reconnect storm would stall)."""

import hashlib
import hmac
import secrets

from config.settings import settings


def new_token(prefix: str) -> str:
    """``<prefix>_<43 URL-safe characters>``; ``prefix`` is ``edgeflow`` for API keys, ``device`` for device keys."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def digest(token: str) -> bytes:
    """What the database holds in place of a token (32 bytes)."""
    return hmac.digest(settings().secret_key.encode(), token.encode(), hashlib.sha256)


def derive(token: str, purpose: str) -> bytes:
    """32 bytes that only the holder of both the token and the secret key can compute."""
    return hmac.digest(settings().secret_key.encode(), f"{purpose}\0{token}".encode(), hashlib.sha256)
