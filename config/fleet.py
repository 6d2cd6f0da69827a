"""``make fleet DEVICES=100``: simulated devices join a running platform.

By default the one of the data folder, with the demo's API key; `EDGEFLOW_URL` and `EDGEFLOW_API_KEY` name another.
"""

import os
import sys

from config.demo import State
from config.launch.host import local_url
from config.settings import SettingsError, load


def main() -> int:
    """Become the simulator; 1 and a line that says why if no API key is known."""
    try:
        settings = load(os.environ)
    except SettingsError as error:
        print(f"edgeflow: {error}", file=sys.stderr)
        return 1
    key = os.environ.get("EDGEFLOW_API_KEY") or State.read(settings.data_dir).values.get("api_key")
    if not key:
        print("edgeflow: no API key: start `make run` once with its demo, or set EDGEFLOW_API_KEY", file=sys.stderr)
        return 1
    url = os.environ.get("EDGEFLOW_URL") or local_url(settings.host, settings.port)
    devices, *more = sys.argv[1:]
    command = [sys.executable, "-m", "agent", "simulate", "--url", url, "--devices", devices]
    command += ["--prefix", "fleet", "--tags", "fleet", *more]
    os.execve(command[0], command, {**os.environ, "EDGEFLOW_API_KEY": key})  # noqa: S606  # our own interpreter


if __name__ == "__main__":
    sys.exit(main())
