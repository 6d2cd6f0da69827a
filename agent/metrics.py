"""The machine's own figures, by the names that the released agent uses."""

import logging
import math
import os
import platform
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger("agent.metrics")

# The first reading has nothing to compare with and would be 0.
psutil.cpu_percent(interval=None)


def system_metrics() -> dict[str, Any]:
    """One reading; a value that this machine does not tell is None. Bytes, percent, seconds, degrees Celsius."""
    memory, swap, load = psutil.virtual_memory(), psutil.swap_memory(), os.getloadavg()
    network = psutil.net_io_counters()
    return {
        "hostname": socket.gethostname(),
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "board_model": board_model(),
        "uptime": int(time.time() - psutil.boot_time()),
        "temperature": temperature(),
        "cpu": {"usage_percent": psutil.cpu_percent(interval=None)},
        "memory": {
            "total_bytes": memory.total,
            "used_bytes": memory.used,
            "free_bytes": memory.free,
            "available_bytes": memory.available,
            "percent": memory.percent,
        },
        "swap": {"total_bytes": swap.total, "used_bytes": swap.used, "free_bytes": swap.free, "percent": swap.percent},
        "load_avg": {"1min": load[0], "5min": load[1], "15min": load[2]},
        "network": {"rx_bytes": network.bytes_recv if network else 0, "tx_bytes": network.bytes_sent if network else 0},
    }


def flatten(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a reading by dotted path, `cpu.usage_percent`; texts, None, booleans and infinity are none."""
    for key, value in figures.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flatten(value, f"{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            yield name, value


def board_model() -> str:
    """The board's name, as a Raspberry Pi or a PC tells it; empty when it does not."""
    for source in ("/proc/device-tree/model", "/sys/class/dmi/id/product_name"):
        try:
            return Path(source).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        except OSError:
            continue
    return ""


def temperature() -> float | None:
    """The processor's temperature, None where there is no sensor."""
    try:
        return int(Path("/sys/class/thermal/thermal_zone0/temp").read_text(encoding="ascii")) / 1000
    except (OSError, ValueError):
        return None


def gpio_state() -> dict[str, Any]:
    """The pins that the kernel's GPIO interface has exported: `{"pins": [{"pin", "direction", "value"}]}`."""
    pins = []
    for folder in sorted(Path("/sys/class/gpio").glob("gpio[0-9]*")):
        try:
            direction = (folder / "direction").read_text(encoding="ascii").strip()
            value = int((folder / "value").read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            log.debug("%s cannot be read: %s", folder.name, error)
            continue
        pins.append({"pin": int(folder.name.removeprefix("gpio")), "direction": direction, "value": value})
    return {"pins": pins}
