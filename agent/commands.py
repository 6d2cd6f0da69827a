"""What the cloud may ask for: one table of actions over a driver."""

import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from agent import protocol
from agent.content import content_hash
from agent.drivers.base import Deployment, Driver, JsonObject
from agent.drivers.installed import definition_of
from agent.protocol import (
    FLOW_NOT_FOUND,
    INTERNAL_ERROR,
    INVALID_FLOW,
    INVALID_PAYLOAD,
    UNKNOWN_ACTION,
    Command,
    CommandError,
)
from agent.rest import RestError
from agent.settings import Settings

log = logging.getLogger("agent.commands")


class Shadow(Protocol):
    """The part of the shadow that commands use."""

    async def read(self) -> JsonObject:
        """The document; raises RestError."""

    async def reread(self) -> JsonObject:
        """Take over what is desired; the delta that was found. Raises RestError."""


@dataclass(frozen=True)
class Context:
    """What the actions work on."""

    driver: Driver
    settings: Settings
    shadow: Shadow


Handler = Callable[[Context, JsonObject], Awaitable[Any]]


@dataclass(frozen=True)
class Action:
    """One row of the table. What `changes` something is done one at a time, noted in the ledger and kept on disk."""

    run: Handler
    changes: bool = False


def changes(name: str) -> bool:
    """Whether an action changes something; unknown ones do not."""
    return name in ACTIONS and ACTIONS[name].changes


async def answer(context: Context, command: Command, applying: Callable[[str], None]) -> str:
    """Carry a command out; the answer as a frame, whatever happens. `applying` hears of each change before it."""
    action = ACTIONS.get(command.action)
    if action is None:
        return protocol.failure(command.id, UNKNOWN_ACTION, f"unknown command action: {command.action}")
    try:
        await context.driver.working(command.action)
        if action.changes:
            applying(command.id)
        return protocol.success(command.id, await action.run(context, command.payload))
    except CommandError as error:
        return protocol.failure(command.id, error.code, str(error))
    except RestError as error:
        return protocol.failure(command.id, INTERNAL_ERROR, f"the cloud's REST interface: {error}")
    except Exception as error:  # the tunnel must outlive any driver's mistake, and the cloud must hear of it
        log.exception("command %s (%s)", command.id, command.action)
        return protocol.failure(command.id, INTERNAL_ERROR, f"{type(error).__name__}: {error}")


def text_of(payload: JsonObject, key: str) -> str:
    """A non-empty text of the payload; raises CommandError INVALID_PAYLOAD."""
    value = payload.get(key)
    if not isinstance(value, str) or not value or len(value) > 200:
        raise CommandError(INVALID_PAYLOAD, f"{key} must be a text of 1 to 200 characters")
    return value


def object_of(payload: JsonObject, key: str) -> JsonObject:
    """An object of the payload; raises CommandError INVALID_PAYLOAD."""
    value = payload.get(key)
    if not isinstance(value, dict):
        raise CommandError(INVALID_PAYLOAD, f"{key} must be an object")
    return value


async def health_check(context: Context, payload: JsonObject) -> Any:
    """The agent's state."""
    return await context.driver.health()


async def list_flows(context: Context, payload: JsonObject) -> Any:
    """`{"flows": [...]}`."""
    return {"flows": await context.driver.list_flows()}


async def get_flow(context: Context, payload: JsonObject) -> Any:
    """`{"flow": {…, "definition"}}`."""
    return {"flow": await context.driver.get_flow(text_of(payload, "flow_id"))}


async def start_flow(context: Context, payload: JsonObject) -> Any:
    """`started` or `already_running`."""
    flow_id = text_of(payload, "flow_id")
    return {"flow_id": flow_id, "status": await context.driver.start(flow_id)}


async def stop_flow(context: Context, payload: JsonObject) -> Any:
    """`stopped`."""
    flow_id = text_of(payload, "flow_id")
    return {"flow_id": flow_id, "status": await context.driver.stop(flow_id)}


async def create_flow(context: Context, payload: JsonObject) -> Any:
    """Install without starting; a second time with the same content is no error."""
    flow = object_of(payload, "flow")
    # No other id than one by which it can be started, changed and deleted.
    flow_id = text_of({"flow_id": payload.get("flow_id") or flow.get("id") or str(uuid.uuid4())}, "flow_id")
    order = _order(flow_id, flow, start=False)
    existing = await _listed(context, flow_id)
    if existing is not None and existing["content_hash"] != order.content_hash:
        raise CommandError(INVALID_FLOW, f"flow already exists: {flow_id}")
    await context.driver.deploy(order)
    return {"flow_id": flow_id, "status": "created"}


async def update_flow(context: Context, payload: JsonObject) -> Any:
    """Replace a flow, which keeps its name where none is given; it runs afterwards if it ran before."""
    flow_id, flow = text_of(payload, "flow_id"), object_of(payload, "flow")
    existing = await _known(context, flow_id)
    flow = flow if flow.get("name") else {**flow, "name": existing["name"]}
    order = _order(flow_id, flow, start=existing["status"] != "stopped")
    if order.content_hash == existing["content_hash"]:  # what it was deployed as it still is
        order = replace(order, version=existing["version"])
    await context.driver.deploy(order)
    return {"flow_id": flow_id, "status": "updated"}


async def delete_flow(context: Context, payload: JsonObject) -> Any:
    """Remove a flow that must be there."""
    flow_id = text_of(payload, "flow_id")
    await _known(context, flow_id)
    await context.driver.remove(flow_id)
    return {"flow_id": flow_id, "status": "deleted"}


async def deploy_flow(context: Context, payload: JsonObject) -> Any:
    """Atomic, and idempotent by content_hash: `installed` or `already_installed`."""
    version, start = payload.get("version"), payload.get("start", True)
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise CommandError(INVALID_PAYLOAD, "version must be an integer")
    if not isinstance(start, bool):
        raise CommandError(INVALID_PAYLOAD, "start must be true or false")
    flow_id, content_hash = text_of(payload, "flow_id"), text_of(payload, "content_hash")
    order = Deployment(flow_id, version, content_hash, object_of(payload, "flow"), start)
    status = await context.driver.deploy(order)
    return {"flow_id": flow_id, "version": version, "content_hash": content_hash, "status": status}


async def remove_flow(context: Context, payload: JsonObject) -> Any:
    """Undo a first deployment; what is not there is removed already."""
    flow_id = text_of(payload, "flow_id")
    await context.driver.remove(flow_id)
    return {"flow_id": flow_id, "status": "removed"}


async def get_shadow(context: Context, payload: JsonObject) -> Any:
    """The shadow document as the cloud has it."""
    return await context.shadow.read()


async def update_desired(context: Context, payload: JsonObject) -> Any:
    """The v1 way of saying that the desired state has changed: read it again; `{"delta"}`."""
    return {"delta": await context.shadow.reread()}


async def get_system_metrics(context: Context, payload: JsonObject) -> Any:
    """The machine's figures."""
    return await context.driver.system_metrics()


async def get_executions(context: Context, payload: JsonObject) -> Any:
    """`{"executions": [...]}`, newest first."""
    return {"executions": await context.driver.executions()}


async def get_gpio_state(context: Context, payload: JsonObject) -> Any:
    """`{"pins": [...]}`."""
    return await context.driver.gpio_state()


async def get_node_types(context: Context, payload: JsonObject) -> Any:
    """`{"node_types": [...]}`."""
    return {"node_types": await context.driver.node_types()}


async def configure(context: Context, payload: JsonObject) -> Any:
    """Change settings; all that hold afterwards."""
    context.settings.apply(object_of(payload, "settings"))
    return {"settings": context.settings.all()}


def _order(flow_id: str, flow: JsonObject, start: bool) -> Deployment:
    hashed = content_hash(definition_of(flow))
    if hashed is None:
        raise CommandError(INVALID_FLOW, "the flow holds a number beyond 64 bits")
    return Deployment(flow_id, None, hashed, flow, start)


async def _listed(context: Context, flow_id: str) -> JsonObject | None:
    found = [flow for flow in await context.driver.list_flows() if flow["id"] == flow_id]
    return found[0] if found else None


async def _known(context: Context, flow_id: str) -> JsonObject:
    """A flow as it is listed, also one that cannot be read; raises CommandError FLOW_NOT_FOUND."""
    found = await _listed(context, flow_id)
    if found is None:
        raise CommandError(FLOW_NOT_FOUND, f"flow not found: {flow_id}")
    return found


ACTIONS: dict[str, Action] = {
    "health_check": Action(health_check),
    "list_flows": Action(list_flows),
    "get_flow": Action(get_flow),
    "start_flow": Action(start_flow, changes=True),
    "stop_flow": Action(stop_flow, changes=True),
    "create_flow": Action(create_flow, changes=True),
    "update_flow": Action(update_flow, changes=True),
    "delete_flow": Action(delete_flow, changes=True),
    "deploy_flow": Action(deploy_flow, changes=True),
    "remove_flow": Action(remove_flow, changes=True),
    "get_shadow": Action(get_shadow),
    "update_desired": Action(update_desired),
    "get_system_metrics": Action(get_system_metrics),
    "get_executions": Action(get_executions),
    "get_gpio_state": Action(get_gpio_state),
    "get_node_types": Action(get_node_types),
    "configure": Action(configure, changes=True),
}
