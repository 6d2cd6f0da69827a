"""The mail catcher of ``make run``: mail goes nowhere, but into the log and into ``<data_dir>/mail/``.

Run by the supervisor as ``python -m config.mailbox PORT FOLDER`` where no mail server is set up.
"""

import asyncio
import re
import signal
import sys
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP

from config.launch.program import Program

MOST_FILES = 1_000  # older ones go: an alert that keeps firing must not fill the disk
MOST_BYTES = 1024 * 1024
_LONGEST_NAME = 80


def program(port: int, folder: Path, cwd: Path, environment: dict[str, str]) -> Program:
    """What the supervisor runs."""
    command = [sys.executable, "-m", "config.mailbox", str(port), str(folder)]
    return Program(name="mail", command=command, cwd=cwd, environment=environment)


def url(port: int) -> str:
    """Where the platform hands over its mail."""
    return f"smtp://127.0.0.1:{port}?starttls=never"


class Mailbox:
    """Keeps each mail as a file and says in one line whom it was for and what it was about."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=default)
        subject = _line(mail["Subject"])
        path = self._keep(subject, envelope.content)
        print(f"mail to {_line(', '.join(envelope.rcpt_tos))}: {subject} ({path})", flush=True)
        return "250 caught"

    def _keep(self, subject: str, content: bytes) -> Path:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{_slug(subject)}.eml"
        path = self._folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        for old in sorted(self._folder.glob("*.eml"))[:-MOST_FILES]:
            old.unlink(missing_ok=True)
        return path


def _line(text: Any) -> str:
    return "".join(character if character.isprintable() else " " for character in str(text or "")).strip()


def _slug(subject: str) -> str:
    return re.sub(r"\W+", "-", subject)[:_LONGEST_NAME].strip("-") or "mail"


async def serve(port: int, folder: Path) -> None:
    """Catch mail on a local port until SIGTERM or SIGINT. Raises OSError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    mailbox = Mailbox(folder)
    server = await loop.create_server(
        lambda: SMTP(mailbox, data_size_limit=MOST_BYTES, enable_SMTPUTF8=True, loop=loop), "127.0.0.1", port
    )
    await stopping.wait()
    server.close()


def main() -> int:
    port, folder = sys.argv[1:]
    try:
        asyncio.run(serve(int(port), Path(folder)))
    except OSError as error:
        print(f"cannot start: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
