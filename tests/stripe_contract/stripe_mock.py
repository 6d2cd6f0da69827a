"""Stripe's own ``stripe-mock``: built where Go is, from a pinned version, once for all runs that share a cache."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODULE = "github.com/stripe/stripe-mock@v0.203.0"
AUTHORIZED = {"Authorization": "Bearer sk_test_123"}
"""It takes any key that looks like one of a test."""
_USUAL = "/usr/local/go/bin/go"
_PATIENCE = 300  # seconds for a download and a build without any cache: some 45 usually


class NotToBeHad(Exception):
    """Why there is no stripe-mock, in words for whoever reads the tests' summary."""


class StripeMock:
    """The program and the description of the API that it holds. Raises NotToBeHad without Go, or without network."""

    def __init__(self, cache: Path) -> None:
        self._go, self._cache = _find_go(), cache
        self.program = cache / "bin" / MODULE.partition("@")[2] / "stripe-mock"
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # parallel runs wait for the one that builds
            if not self.program.exists():
                self._install()
            module = json.loads(self._run("mod", "download", "-json", MODULE))["Dir"]
        self.openapi = Path(module) / "embedded" / "openapi" / "spec3.json"

    @contextmanager
    def running(self) -> Iterator[str]:
        """The address of a server of one's own, on free ports of this machine alone."""
        # Without an address for it, HTTPS would be served on all interfaces, on a fixed port.
        command = [self.program, "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0"]
        with (self._cache / f"log.{os.getpid()}").open("w+") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            try:
                yield f"http://{_address(process)}"
            finally:
                process.kill()
                process.communicate()
                Path(log.name).unlink()

    def _install(self) -> None:
        with tempfile.TemporaryDirectory() as building:
            objects = os.environ.get("GOCACHE", f"{building}/objects")
            self._run("install", MODULE, GOBIN=f"{building}/bin", GOCACHE=objects)
            self.program.parent.mkdir(parents=True, exist_ok=True)
            # Moved in whole: a build that is cut short leaves nothing that looks done.
            shutil.move(f"{building}/bin/stripe-mock", self.program.with_suffix(".new"))
        self.program.with_suffix(".new").rename(self.program)

    def _run(self, *arguments: str, **environ: str) -> str:
        """Modules go into our cache, deletable, unless GOPATH says where the user wants his."""
        base = {"GOPATH": str(self._cache / "go"), "GOCACHE": str(self._cache / "build"), **os.environ, **environ}
        base["GOFLAGS"] = f"{base.get('GOFLAGS', '')} -modcacherw".strip()
        try:
            done = subprocess.run(
                [self._go, *arguments], env=base, cwd="/", capture_output=True, text=True, timeout=_PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise NotToBeHad(f"go {arguments[0]} {MODULE} was not done in {_PATIENCE} s") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["no word why"]
            raise NotToBeHad(f"go {arguments[0]} {MODULE} failed (offline?): {said[-1]}")
        return done.stdout


def _find_go() -> str:
    found = shutil.which("go") or (_USUAL if os.access(_USUAL, os.X_OK) else None)
    if found is None:
        raise NotToBeHad("Go is not installed: what we say to Stripe is not checked against its own description")
    return found


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"Listening for HTTP at address: (\S+)", line):
            return found[1]
    raise AssertionError(f"stripe-mock ended with {process.wait()}")
