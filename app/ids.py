"""Random names of requests and commands, which are many: their bits come from the kernel some at a time.

Nobody is let in for knowing one. What must not be guessed is ``app.tokens``'s.
"""

import os

_AT_ONCE = 256
_drawn: list[bytes] = []
os.register_at_fork(after_in_child=_drawn.clear)


def request_id() -> str:
    """32 hexadecimal digits."""
    return _draw().hex()


def command_id() -> str:
    """A random UUID (RFC 9562, version 4) as text."""
    bits = int.from_bytes(_draw())
    digits = f"{bits & ~(0xF << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _draw() -> bytes:
    try:
        return _drawn.pop()
    except IndexError:
        many = os.urandom(16 * _AT_ONCE)
        _drawn.extend(many[start : start + 16] for start in range(16, len(many), 16))
        return many[:16]
