"""Passwords: argon2id with 19 MiB, two passes, one lane (OWASP's first recommendation for servers)."""

import base64
import unicodedata
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from gevent import get_hub, monkey

T = TypeVar("T")

_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, hash_len=32, salt_len=16)


def _nobodys_hash() -> str:
    """A hash that no password has, as dear to check as a real one."""
    salt, value = (base64.b64encode(bytes(size)).decode().rstrip("=") for size in (16, 32))
    return f"$argon2id$v=19$m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}${salt}${value}"


NOBODY = _nobodys_hash()


def hashed(password: str) -> str:
    """What the database holds in place of a password."""
    return _aside(lambda: _hasher.hash(_normal(password)))


def matches(password: str, stored: str | None) -> bool:
    """Whether this is the password; ``stored`` None (an unknown user) costs the same time and is False."""
    return _aside(lambda: _verify(password, stored or NOBODY)) and stored is not None


def outdated(stored: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)


def _verify(password: str, stored: str) -> bool:
    try:
        return _hasher.verify(stored, _normal(password))
    except (VerificationError, InvalidHashError):
        return False


def _normal(password: str) -> str:
    """The same characters typed on another keyboard may come composed in another way (NIST SP 800-63B: NFKC)."""
    return unicodedata.normalize("NFKC", password)


def _aside(call: Callable[[], T]) -> T:
    """Run in a thread where gevent rules: 20 ms of hashing would stall every socket of the process."""
    if monkey.is_module_patched("socket"):
        done: T = get_hub().threadpool.apply(call)
        return done
    return call()
