"""The EdgeFlow runtime's answers in the words that the cloud knows: machine, pins, node types, executions. Pure."""

from agent.drivers.base import JsonObject

DIRECTIONS = {"input": "in", "output": "out"}
STATUSES = {"completed": "succeeded"}
MAX_EXECUTIONS = 50


def machine(stats: JsonObject) -> JsonObject:
    """`/resources/stats` as `get_system_metrics` tells a machine's figures."""
    system, memory = _object(stats, "system"), _object(stats, "memory")
    swap = _object(system, "swap")
    total, used = swap.get("total_bytes") or 0, swap.get("used_bytes") or 0
    return {
        **{key: system.get(key) for key in ("hostname", "os", "arch", "board_model", "uptime", "temperature")},
        "cpu": {"usage_percent": _object(stats, "cpu").get("usage_percent")},
        "memory": {
            "total_bytes": memory.get("total_bytes"),
            "used_bytes": memory.get("used_bytes"),
            "free_bytes": memory.get("free_bytes"),
            "available_bytes": memory.get("free_bytes"),
            "percent": memory.get("usage_percent"),
        },
        "swap": {
            "total_bytes": total,
            "used_bytes": used,
            "free_bytes": max(0, total - used),
            "percent": round(100 * used / total, 1) if total else 0.0,
        },
        "disk": {**_object(stats, "disk")},
        "load_avg": _object(system, "load_avg"),
        "network": _object(system, "network"),
    }


def pins(state: JsonObject) -> JsonObject:
    """`/gpio/state` as `{"pins": [{"pin", "direction", "value", "edges"}], "board", "available"}`."""
    found = []
    for name, pin in _object(state, "pins").items():
        if isinstance(pin, dict):
            mode = str(pin.get("mode") or "")
            number = pin.get("bcm_pin", name)
            value = int(bool(pin.get("value")))
            found.append(
                {
                    "pin": int(number) if str(number).isdigit() else number,
                    "direction": DIRECTIONS.get(mode, mode),
                    "value": value,
                    "edges": pin.get("edge_count", 0),
                }
            )
    found.sort(key=lambda pin: str(pin["pin"]).zfill(8))
    return {"pins": found, "board": state.get("board_name"), "available": bool(state.get("available"))}


def catalogue(types: list[JsonObject]) -> list[JsonObject]:
    """`/node-types`, without what only an editor needs."""
    kinds = [kind for kind in types if isinstance(kind.get("type"), str) and kind["type"]]
    return sorted(
        ({key: kind[key] for key in ("type", "name", "category", "description") if key in kind} for kind in kinds),
        key=lambda kind: str(kind["type"]),
    )


def history(executions: list[JsonObject], names: dict[str, str]) -> list[JsonObject]:
    """`/executions` as `get_executions` tells them; `names`: the cloud's ids by the runtime's."""
    return [
        {
            "id": str(one.get("id")),
            "flow_id": names.get(str(one.get("flow_id")), str(one.get("flow_id"))),
            "trigger": "start",
            "status": STATUSES.get(str(one.get("status")), one.get("status")),
            "started_at": one.get("start_time"),
            "finished_at": one.get("end_time"),
            "messages": (one.get("completed_nodes") or 0) + (one.get("error_nodes") or 0),
            "errors": one.get("error_nodes") or 0,
            "error": one.get("error") or None,
        }
        for one in executions[:MAX_EXECUTIONS]
    ]


def _object(value: JsonObject, key: str) -> JsonObject:
    found = value.get(key)
    return found if isinstance(found, dict) else {}
