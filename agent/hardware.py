"""What identifies a machine: the cloud binds a provisioning code to it, so it must be the same after every start."""

import hashlib
import platform
import random
import socket
import uuid
from pathlib import Path
from typing import Any

from agent.metrics import board_model

Info = dict[str, Any]


def hardware_info() -> Info:
    """This machine; what it does not tell is left out."""
    found = {
        "serial": _first_text("/proc/device-tree/serial-number", "/sys/class/dmi/id/product_serial"),
        "mac": _mac(),
        "machine_id": _machine_id(),
        "arch": platform.machine(),
        "os": platform.system().lower(),
        "board_model": board_model(),
    }
    return {key: value for key, value in found.items() if value}


def network_info() -> Info:
    """Name and address under which this machine reaches out."""
    info: Info = {"hostname": socket.gethostname()}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Connecting a datagram socket sends nothing: it only asks the routing table.
            probe.connect(("192.0.2.1", 9))
            info["ip_address"] = probe.getsockname()[0]
        except OSError:
            info["ip_address"] = "127.0.0.1"
    return info


def simulated_hardware(seed: int, name: str) -> Info:
    """The same invented board for the same seed and name, every time."""
    rng = random.Random(f"{seed}:{name}:hardware")
    octets = [0x02, *(rng.randrange(256) for _ in range(5))]
    return {
        "serial": f"{rng.getrandbits(64):016x}",
        "mac": ":".join(f"{octet:02x}" for octet in octets),
        "machine_id": f"{rng.getrandbits(128):032x}",
        "arch": "aarch64",
        "os": "linux",
        "board_model": "Simulated Board rev 1",
    }


def simulated_network(name: str) -> Info:
    """A network that goes with `simulated_hardware`."""
    host = int(hashlib.sha256(name.encode()).hexdigest()[:4], 16)
    return {"hostname": name, "ip_address": f"10.77.{host >> 8}.{host & 255}"}


def _first_text(*paths: str) -> str:
    """Of those files the first that can be read here; empty without any."""
    for path in paths:
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        except OSError:
            continue
    return ""


def _machine_id() -> str:
    """A digest of the machine id: systemd asks not to send the id itself anywhere (man machine-id)."""
    own = _first_text("/etc/machine-id", "/var/lib/dbus/machine-id")
    return hashlib.sha256(f"edgeflow-agent:{own}".encode()).hexdigest()[:32] if own else ""


def _mac() -> str:
    """The first real network card's address: bridges and tunnels come and go, so they identify nothing."""
    for card in sorted(Path("/sys/class/net").glob("*/device")):
        address = _first_text(str(card.parent / "address"))
        if address:
            return address
    node = uuid.getnode()
    # The multicast bit means that no card told its address and Python rolled dice: worthless as an identity.
    return "" if node >> 40 & 1 else ":".join(f"{node >> shift & 255:02x}" for shift in range(40, -1, -8))
