"""What this machine offers: an account for servers, a folder that it can reach, free ports, private files."""

import json
import os
import pwd
import secrets
import socket
import stat
import tempfile
from pathlib import Path

from config.launch.program import Account, LaunchError, run_as

BARE_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
BACKLOG = 4096  # connects that may wait while nobody accepts
_CLOSED_HOMES = Path("/var/lib/edgeflow")


def server_account(existing: Path) -> Account | None:
    """As whom a server runs that refuses root: None is the current user.

    ``existing`` is its data folder; if that is there its owner stays, so that nothing changes hands between starts.
    """
    if existing.exists():
        owner = existing.stat()
        if owner.st_uid == os.geteuid():
            return None
        if os.geteuid() != 0:
            raise LaunchError(f"{existing} belongs to another user: run as that user or set EDGEFLOW_DATA_DIR")
        return Account(owner.st_uid, owner.st_gid)
    return _unprivileged() if os.geteuid() == 0 else None


def _unprivileged() -> Account:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise LaunchError("PostgreSQL refuses to run as root and neither user `postgres` nor `nobody` exists")


def home(data_dir: Path, *, durable: bool) -> Path:
    """The folder for what a server reads and writes: the data folder, if the server's account can reach it.

    A checkout below a closed folder (root's own home is 0700) is out of its reach. Opening that folder is not ours to
    do, so the data go to ``/var/lib/edgeflow`` (if not ``durable``: to the temporary folder) and ``<data_dir>/home``
    links there.
    """
    link = data_dir / "home"
    if link.is_symlink():
        return _linked_home(link)
    account = server_account(data_dir / "postgres")
    if account is None or reaches(account, data_dir):
        return data_dir
    if reaches(account, data_dir.parent):
        # The folder itself is ours: it may be passed through, what is private in it is closed file by file.
        data_dir.chmod(0o711)
        return data_dir
    away = _open_folder() if durable else Path(tempfile.mkdtemp(prefix="edgeflow-home-"))
    away.chmod(0o755)
    link.symlink_to(away)
    return away


def _linked_home(link: Path) -> Path:
    target = Path(os.readlink(link))
    if not target.is_dir():
        raise LaunchError(f"{link} names {target}, which is gone: delete the link to begin with empty data")
    return target


def _open_folder() -> Path:
    _CLOSED_HOMES.mkdir(parents=True, exist_ok=True)
    _CLOSED_HOMES.chmod(0o755)
    folder = _CLOSED_HOMES / secrets.token_hex(6)
    folder.mkdir()
    return folder


def reaches(account: Account, folder: Path) -> bool:
    """Whether ``account`` may enter ``folder``; asked of the kernel, which knows about access lists too."""
    try:
        run_as(account, ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)], BARE_ENVIRONMENT)
    except LaunchError:
        return False
    return True


def listen(address: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def listen_fault(address: str, port: int) -> str:
    """Why a server could not listen there now; empty if it could."""
    try:
        listen(address, port).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def local_url(address: str, port: int) -> str:
    """Where this machine reaches a server that listens on ``address``, which may be every address."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def remembered_port(data_dir: Path, name: str) -> int:
    """A free local port for ``name``: the one of the last start, or a new one, which is remembered.

    New ones lie below the range from which the kernel serves outgoing connections, so none of those takes it.
    """
    file = data_dir / "ports.json"
    ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    port = ports.get(name, 0)
    while not port or listen_fault("127.0.0.1", port):
        port = 20_000 + secrets.randbelow(12_000)
    if ports.get(name) != port:
        write_private(file, json.dumps({**ports, name: port}))
    return port


def write_private(path: Path, content: str, account: Account | None = None) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if account:
        os.chown(draft, account.uid, account.gid)
    draft.replace(path)


def kept_secret(data_dir: Path, name: str, size: int = 24) -> str:
    """A password of ``size`` random bytes that is generated once into ``<data_dir>/secrets/<name>``."""
    path = data_dir / "secrets" / name
    if not path.exists():
        write_private(path, secrets.token_hex(size))
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        path.chmod(0o600)
    return path.read_text().strip()
