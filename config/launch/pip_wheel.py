"""Bring pip into an environment that was made without it: ``python pip_wheel.py .venv/bin/python``.

Runs before anything is installed: the standard library only. A wheel of the machine is taken, if there is one
(Debian's python3-pip-whl), else the newest from the package index that ``PIP_INDEX_URL`` names.
"""

import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

ON_THIS_MACHINE = Path("/usr/share/python-wheels")
_WHEEL = re.compile(r"pip-(\d+(?:\.\d+)+)-py3-none-any\.whl")


def main() -> int:
    """0 if the environment has pip now; 1, having said why, if not."""
    python = sys.argv[1]
    try:
        for wheel in sorted(ON_THIS_MACHINE.glob("pip-*.whl")):
            return _install(python, wheel)
        with tempfile.TemporaryDirectory() as folder:
            return _install(python, _downloaded(Path(folder)))
    except (OSError, ValueError, LookupError) as error:
        print(f"edgeflow: {error}", file=sys.stderr)
        return 1


def _install(python: str, wheel: Path) -> int:
    # A wheel is a zip file that Python runs, also this one.
    command = [python, f"{wheel}/pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", str(wheel)]
    return subprocess.run(command, check=False).returncode


def _downloaded(folder: Path) -> Path:
    index = os.environ.get("PIP_INDEX_URL", "").rstrip("/") + "/pip/"
    if index == "/pip/":
        raise LookupError("this Python has no pip for a new environment, and PIP_INDEX_URL names no package index")
    listing = json.loads(_get(index, {"Accept": "application/vnd.pypi.simple.v1+json"}))
    files = {match.group(1): file for file in listing["files"] if (match := _WHEEL.fullmatch(file["filename"]))}
    newest = files[max(files, key=lambda version: [int(part) for part in version.split(".")])]
    content = _get(urljoin(index, newest["url"]), {})
    if hashlib.sha256(content).hexdigest() != newest["hashes"]["sha256"]:
        raise ValueError(f"{newest['filename']} does not match its checksum")
    path = folder / newest["filename"]
    path.write_bytes(content)
    return path


def _get(url: str, headers: dict[str, str]) -> bytes:
    trust = ssl.create_default_context(cafile=os.environ.get("PIP_CERT"))
    if not url.startswith("https://"):
        raise ValueError(f"{url}: only https is trusted")
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # checked above
    with urllib.request.urlopen(request, timeout=60, context=trust) as answer:  # noqa: S310
        return bytes(answer.read())


if __name__ == "__main__":
    sys.exit(main())
