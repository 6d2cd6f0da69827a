"""A real Node-RED for the tests: installed once from the lock file beside this, started on a free port."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx

from tests.platform import TLS, free_port

HERE = Path(__file__).parent
INSTALL_SECONDS = 300
SETTINGS = """module.exports = {
  uiHost: "127.0.0.1", flowFile: "flows.json", credentialSecret: "of the tests", adminAuth: %s, httpAdminRoot: "%s/",
  telemetry: { enabled: false }, editorTheme: { tours: false },
  externalModules: { palette: { allowInstall: false }, modules: { allowInstall: false } },
}
"""


class NotHere(Exception):
    """There is no Node-RED to be had on this machine."""


def install(folder: Path) -> Path:
    """The folder of an installed Node-RED: the one of an earlier run, or npm's work of now. Raises NotHere."""
    _check_node()
    lock_file = (HERE / "package-lock.json").read_bytes()
    home = folder / hashlib.sha256(lock_file).hexdigest()[:12]
    home.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel workers of one run
        if not (home / "complete").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, home / name)
            _npm(home)
            (home / "complete").touch()
    return home


def _check_node() -> None:
    try:
        found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotHere("there is no Node.js on this machine") from error
    version = tuple(map(int, found.strip().lstrip("v").split(".")[:2]))
    if version < (18, 5):
        raise NotHere(f"Node-RED 4 needs Node.js 18.5, this is {found.strip()}")


def _npm(home: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHere(f"npm could not install Node-RED: {type(error).__name__}") from error
    if done.returncode:
        said = (done.stderr.strip() or "no reason").splitlines()[0]
        raise NotHere(f"npm could not install Node-RED: {said}")


class NodeRed:
    """One Node-RED with a folder of its own, on loopback. ``root``: its ``httpAdminRoot``, like ``/admin``."""

    def __init__(self, home: Path, folder: Path, auth: str = "null", token: str | None = None, root: str = "") -> None:
        self.home, self.folder, self.port, self.root = home, folder, free_port(), root
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.js").write_text(SETTINGS % (auth, root))
        headers = {"Node-RED-API-Version": "v2", **({"Authorization": f"Bearer {token}"} if token else {})}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=20, trust_env=False, verify=TLS)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.root}"

    def __enter__(self) -> "NodeRed":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.http.close()

    def start(self) -> None:
        command = ["node", "node_modules/node-red/red.js", "--userDir", str(self.folder), "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.home, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "TZ": "UTC"}
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self.http.get("/flows/state").json() == {"state": "start"}
        except (httpx.HTTPError, ValueError):
            return False

    def stop(self, how: int = signal.SIGKILL) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, how)
            self.process.wait(10)

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> str:
        return (self.folder / "log").read_text()[-4000:]

    # --- as another writer, the editor for one ---

    def read(self) -> dict[str, Any]:
        """`{"rev", "flows"}`."""
        found: dict[str, Any] = self.http.get("/flows").raise_for_status().json()
        return found

    def write(self, flows: list[dict[str, Any]], kind: str = "flows") -> None:
        body = {"flows": flows, "rev": self.read()["rev"]}
        self.http.post("/flows", json=body, headers={"Node-RED-Deployment-Type": kind}).raise_for_status()

    def change(self, node_id: str, **fields: Any) -> None:
        """Change one object by hand."""
        self.write([{**item, **fields} if item["id"] == node_id else item for item in self.read()["flows"]])

    def objects(self) -> dict[str, dict[str, Any]]:
        """What is deployed, by id."""
        return {item["id"]: item for item in self.read()["flows"]}

    def ask(self, path: str) -> str | None:
        """What a flow's `http in` answers; None when there is none."""
        answer = self.http.get(path)
        return answer.text if answer.status_code == 200 else None
