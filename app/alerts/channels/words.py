"""A notification in words: one line for subjects and lists, a text for mails and chats. Pure."""

from typing import Any

KINDS = {"firing": "firing", "resolved": "resolved", "reminder": "still firing"}
CONDITIONS = {"gt": ">", "gte": "≥", "lt": "<", "lte": "≤", "eq": "=", "ne": "≠"}


def title(payload: dict[str, Any]) -> str:
    """``[firing] Pump too hot: pump-7 and 499 more``."""
    return f"[{KINDS[payload['kind']]}] {_line(payload['rule']['name'])}: {_who(payload)}"


def lines(payload: dict[str, Any]) -> list[str]:
    """What a mail and a chat message say below the title: what the rule wants, who breaks it, where to look."""
    rule = payload["rule"]
    told = [f"{rule['severity']}: {wanted(rule)}"]
    told += [f"- {_line(_subject(alert, payload))}{_value(alert)}" for alert in payload["alerts"]]
    if payload["more"]:
        told.append(f"and {payload['more']} more")
    return [*told, payload["url"]]


def wanted(rule: dict[str, Any]) -> str:
    """What makes the rule fire: ``temperature > 80 for 60 s``."""
    held = f" for {rule['for_seconds']} s" if rule["for_seconds"] else ""
    if rule["type"] == "metric":
        sign = CONDITIONS.get(rule["condition"], rule["condition"])
        return f"{_line(rule['metric'])} {sign} {rule['threshold']:g}{held}"
    return {
        "device_offline": f"device offline{held}",
        "deployment_failed": "deployment failed",
        "log_match": "log entries match",
    }.get(rule["type"], rule["type"])


def slack(payload: dict[str, Any]) -> str:
    """The text of a chat message, in which nothing that a device or a user chose is markup."""
    text = "\n".join([title(payload), *lines(payload)])
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return text


def _who(payload: dict[str, Any]) -> str:
    if not payload["alerts"]:
        return str(payload["count"])
    first = _line(_subject(payload["alerts"][0], payload))
    others = payload["count"] - 1
    return f"{first} and {others} more" if others else first


def _subject(alert: dict[str, Any], payload: dict[str, Any]) -> str:
    if alert["device_name"]:
        return str(alert["device_name"])
    if alert["subject"] == payload["organization_id"]:
        return "the platform"  # its own log entries match
    return f"deployment {alert['subject']}" if alert["deployment_id"] else str(alert["subject"])


def _value(alert: dict[str, Any]) -> str:
    return "" if alert["value"] is None else f": {alert['value']:g}"


def _line(text: Any) -> str:
    """One printable line of what somebody else chose."""
    return "".join(character if character.isprintable() else " " for character in str(text)).strip()
