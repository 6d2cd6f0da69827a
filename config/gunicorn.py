"""Settings of the web processes: gevent workers that hold tunnels and answer requests."""

import gc
import os
import resource
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from config.launch import http_server
from config.launch.json_logger import JsonLogger
from config.plans import plans_or_exit
from config.settings import settings_or_exit

_settings = settings_or_exit()
plans_or_exit()
_spare_descriptors = 2_048  # database, Redis, log and listening sockets of one process

# A listening socket that whoever started this process keeps open (`make run` does): it outlives a killed master, so
# that devices which dial meanwhile wait in its queue and are not refused.
_inherited = os.environ.get("EDGEFLOW_LISTEN_FD")
_address = f"[{_settings.host}]" if ":" in _settings.host else _settings.host
bind = f"fd://{_inherited}" if _inherited else f"{_address}:{_settings.port}"
workers = _settings.web_workers
# Its worker patches the standard library, then loads the application. Never preload: patched late, everything queues.
worker_class = "gevent"
preload_app = False
# It stops accepting at this number, and every tunnel counts.
worker_connections = _settings.max_tunnels
backlog = 4096
# With the second or two that a worker takes to notice, less than the 8 s that `make run` gives before it kills.
graceful_timeout = 6
timeout = 60
keepalive = 5  # an idle connection holds up a stopping worker for as long
accesslog = None  # the application logs its requests itself, with their ids
errorlog = "-"
loglevel = _settings.log_level.lower()
if _settings.logs_json:
    logger_class = JsonLogger
# No caller names the path that the application sees: by default the headers SCRIPT_NAME and PATH_INFO of one on the
# same host (a proxy that hands everything on) do.
forwarder_headers = ""
# Nor does any tell it the scheme: the application believes the proxies that it is told of, and nobody else. With
# nothing to be believed, it need not ask of each request whom it comes from.
secure_scheme_headers: dict[str, str] = {}
forwarded_allow_ips = "*"
# Its default lies in the user's home folder, where two platforms would share it.
control_socket_disable = True

# Before anything imports prometheus_client, which looks for it once. By port: two platforms may share a data folder.
_metrics_dir = Path(
    os.environ.setdefault(
        "PROMETHEUS_MULTIPROC_DIR", str(_settings.data_dir.resolve() / "metrics" / f"web-{_settings.port}")
    )
)


http_server.patch()


def on_starting(server: Any) -> None:
    """Begin with empty metrics files (those of dead processes would be added up) and enough file descriptors."""
    shutil.rmtree(_metrics_dir, ignore_errors=True)
    _metrics_dir.mkdir(parents=True)
    _raise_descriptor_limit(server.log)


def _raise_descriptor_limit(log: Any) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = worker_connections + _spare_descriptors
    if hard != resource.RLIM_INFINITY and hard < wanted:
        log.warning("the limit of open files (%d) is too low for %d connections", hard, worker_connections)
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def post_worker_init(worker: Any) -> None:
    """Start this process's gateway, and drain it when the process is told to end."""
    # What the server itself says of a request (at DEBUG its path, on a fault its URL) may hold a secret, too.
    worker.log.error_log.handlers.clear()
    worker.log.error_log.propagate = True
    hub = worker.wsgi.extensions["tunnel"]()
    worker.drain = threading.Thread(target=_drain_at_end, args=(worker, hub), name="tunnel-drain", daemon=True)
    worker.drain.start()
    # What is loaded stays for good. Looked through for garbage with the rest, it stopped all requests for 80 ms a time.
    gc.collect()
    gc.freeze()


def worker_exit(_server: Any, worker: Any) -> None:
    """Its last socket may be closed before that is written down: without this, devices seem connected to nobody."""
    if hasattr(worker, "drain"):
        worker.drain.join(timeout=3)


def _drain_at_end(worker: Any, hub: Any) -> None:
    while worker.alive:
        time.sleep(0.1)
    worker.wsgi.extensions["watcher"].close()  # its streams: else each would hold the process up
    hub.drain()


def child_exit(_server: Any, worker: Any) -> None:
    """Take a dead process's gauges out of the sums."""
    # Not at the top: imported before its variable is set, it would not share at all.
    from prometheus_client import multiprocess  # noqa: PLC0415

    multiprocess.mark_process_dead(worker.pid)
