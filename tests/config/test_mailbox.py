"""The mail catcher as the supervisor runs it."""

import io
import smtplib
import subprocess
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest

from app.alerts.channels.email import Server
from config import mailbox, supervisor
from config.launch.console import Terminal
from config.launch.supervision import Supervisor
from config.launch.watchdog import Watchdog
from config.settings import load
from tests.config import parts
from tests.config.test_settings import PRODUCTION
from tests.platform import ROOT, free_port


class Running:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.log = folder.parent / "log"
        program = mailbox.program(self.port, folder, ROOT, parts.environment(folder))
        with self.log.open("wb") as output:
            self.process = program.spawn(output)

    def send(self, subject: str, *to: str, size: int = 1) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "edgeflow@example.org", ", ".join(to), subject
        mail.set_content("x" * size)
        with self.connection() as connection:
            connection.send_message(mail)

    def connection(self) -> smtplib.SMTP:
        deadline = time.monotonic() + 10
        while True:
            try:
                return smtplib.SMTP("127.0.0.1", self.port, timeout=5)
            except OSError:
                assert time.monotonic() < deadline, self.log.read_text()
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.05)

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*"))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path / "mail")
    yield one
    one.process.kill()
    one.process.wait()


def test_a_mail_is_one_file_and_one_line(running: Running) -> None:
    running.send("[firing] Pumpe zu heiß: pump-7", "ada@example.com", "bob@example.com")
    (file,) = running.files
    assert file.name.endswith("-firing-Pumpe-zu-heiß-pump-7.eml")
    assert file.stat().st_mode & 0o077 == 0
    assert message_from_bytes(file.read_bytes(), policy=default)["Subject"] == "[firing] Pumpe zu heiß: pump-7"
    (line,) = running.log.read_text().splitlines()
    assert line == f"mail to ada@example.com, bob@example.com: [firing] Pumpe zu heiß: pump-7 ({file})"


def test_a_subject_leads_nowhere_else_and_to_no_second_line(running: Running) -> None:
    running.send("../../../etc/passwd", "ada@example.com")
    running.send("", "ada@example.com")
    running.send("x" * 300, "ada@example.com")
    names = [file.name for file in running.files]
    assert len(names) == 3
    assert all(len(name.encode()) < 255 for name in names)
    assert len(running.log.read_text().splitlines()) == 3
    assert [path.name for path in running.folder.parent.iterdir()] in (["mail", "log"], ["log", "mail"])


def test_old_mails_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "MOST_FILES", 3)
    kept = mailbox.Mailbox(tmp_path)
    for number in range(5):
        kept._keep(str(number), b"x")
    assert [path.name[-5:] for path in sorted(tmp_path.iterdir())] == ["2.eml", "3.eml", "4.eml"]


def test_a_mail_that_is_too_large_is_refused(running: Running) -> None:
    with pytest.raises(smtplib.SMTPResponseException):
        running.send("large", "ada@example.com", size=mailbox.MOST_BYTES + 1)
    assert running.files == []


def test_it_ends_when_asked(running: Running) -> None:
    running.connection().close()
    running.process.terminate()
    assert running.process.wait(5) == 0


def test_a_taken_port_is_told_in_one_line(running: Running, tmp_path: Path) -> None:
    running.connection().close()
    program = mailbox.program(running.port, tmp_path / "other", ROOT, parts.environment(tmp_path))
    process = program.spawn(subprocess.PIPE)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    (line,) = output.decode().splitlines()
    assert line.startswith("cannot start: ")
    assert line.endswith("address already in use")


def test_the_platform_is_told_where_it_listens() -> None:
    server = Server.of(mailbox.url(2525))
    assert (server.host, server.port, server.starttls, server.user) == ("127.0.0.1", 2525, "never", None)


@pytest.mark.parametrize(
    ("environ", "caught", "private"),
    [
        ({}, True, "1"),
        ({"EDGEFLOW_WEBHOOK_PRIVATE": "0"}, True, "0"),
        ({"EDGEFLOW_SMTP_URL": "smtp://mail.example.com"}, False, "1"),
        (PRODUCTION, False, None),
    ],
)
def test_in_development_alerts_stay_on_this_machine(
    tmp_path: Path, environ: dict[str, str], caught: bool, private: str | None
) -> None:
    running = Supervisor(Terminal(io.StringIO()), Watchdog(parts.environment(tmp_path)))
    settings = load({"EDGEFLOW_DATA_DIR": str(tmp_path), **environ})
    try:
        told = supervisor._catch_alerts(running, settings, tmp_path, environ)
        assert [part.program.name for part in running._parts] == (["mail"] if caught else [])
    finally:
        running.stop()
    assert told.get("EDGEFLOW_WEBHOOK_PRIVATE") == private
    assert told.get("EDGEFLOW_SMTP_URL", "").startswith("smtp://127.0.0.1:") is caught
    load({"EDGEFLOW_DATA_DIR": str(tmp_path), **told})  # what the platform is told is valid
