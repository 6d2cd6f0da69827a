"""What requests about devices hold and what answers tell."""

from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from app.api_schema import JsonObject, Name, Schema, Text, Time
from app.devices.status import STATUSES
from app.pagination import PageQuery, page_of

DEVICE_ID = "3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c"
_KEY = "device_9vXk3mJ0q2sT5wY8zB1dF4gH7jL0nP3rU6xA9cE2iMo"
_CODE = "code_Qm7tZ2yV5bN8cX1kD4fG7hJ0lP3sR6uW9xA2eI5oTqY"
_HARDWARE = {"serial": "10000000a1b2c3d4", "board_model": "Raspberry Pi 5 Model B", "arch": "arm64", "os": "linux"}
_NETWORK = {"hostname": "pump-7", "ip_address": "192.0.2.17", "mac_address": "02:00:5e:10:00:07"}
_DESIRED = {"interval": 30, "led": {"color": "green"}}
_REPORTED = {"interval": 10, "led": {"color": "green"}}


def _object(description: str, example: Any, **options: Any) -> JsonObject:
    return JsonObject(metadata={"description": description, "example": example}, **options)


def _name(**options: Any) -> Name:
    return Name(metadata={"example": "pump-7"}, **options)


def _type() -> Text:
    description = "what kind of device it is, in your own words"
    return Text(validate=validate.Length(1, 64), metadata={"description": description, "example": "generic"})


def _tags() -> fields.List:
    tag = Text(validate=validate.Length(1, 64), metadata={"example": "pump"})
    return fields.List(tag, validate=validate.Length(max=64), metadata={"example": ["pump", "north"]})


class DeviceQuery(PageQuery):
    status = fields.String(validate=validate.OneOf(STATUSES), metadata={"description": "only devices of this status"})
    tag = fields.List(
        Text(validate=validate.Length(1, 64)),
        metadata={"description": "only devices with this tag; repeat for several"},
    )
    q = Text(
        validate=validate.Length(1, 200),
        metadata={"description": "text in name, tags or serial number, or the beginning of the id", "example": "pump"},
    )
    drift = fields.Boolean(
        metadata={"description": "true: only devices where a flow differs from what was deployed; false: only others"}
    )
    sort = fields.String(
        metadata={
            "description": "name, created_at, updated_at, last_seen_at, status or id; a leading - reverses",
            "example": "-created_at",
        }
    )


class DeviceCreate(Schema):
    name = _name(required=True)
    type = _type()
    tags = _tags()
    metadata = _object("whatever you want to keep with the device", {"room": "B2"})


class DeviceUpdate(Schema):
    name = _name()
    type = _type()
    tags = _tags()
    metadata = _object("replaces the whole object", {"room": "B3"})
    disabled = fields.Boolean(
        metadata={"description": "true closes the device's tunnel and keeps it out; its key stays", "example": False}
    )


class DeviceRead(Schema):
    id = fields.UUID(metadata={"example": DEVICE_ID})
    name = fields.String(metadata={"example": "pump-7"})
    type = fields.String(metadata={"example": "generic"})
    status = fields.String(validate=validate.OneOf(STATUSES), metadata={"example": "online"})
    disabled = fields.Boolean(metadata={"example": False})
    tags = fields.List(fields.String(), metadata={"example": ["pump", "north"]})
    metadata = fields.Dict(metadata={"example": {"room": "B2"}})
    hardware_info = fields.Dict(
        allow_none=True, metadata={"description": "as the agent told when it was provisioned", "example": _HARDWARE}
    )
    network_info = fields.Dict(allow_none=True, metadata={"example": _NETWORK})
    agent_version = fields.String(allow_none=True, metadata={"example": "1.0.0"})
    protocol = fields.Integer(allow_none=True, metadata={"description": "of the tunnel", "example": 2})
    capabilities = fields.List(fields.String(), metadata={"example": ["deploy_flow", "telemetry"]})
    last_seen_at = Time(allow_none=True)
    connected_at = Time(allow_none=True, metadata={"description": "when its newest tunnel was opened"})
    created_at = Time()
    updated_at = Time()


class DriftRead(Schema):
    """A flow that differs on the device from what was deployed there."""

    flow_id = fields.UUID(metadata={"example": DEVICE_ID})
    flow_name = fields.String(metadata={"example": "Temperature watch"})
    deployed_version = fields.Integer(metadata={"example": 3})
    deployed_hash = fields.String(metadata={"example": "9f86d081884c7d65"})
    running_hash = fields.String(
        allow_none=True, metadata={"description": "null: it is not there any more", "example": "60303ae22b998861"}
    )
    running_status = fields.String(allow_none=True, metadata={"example": "running"})
    since = Time(metadata={"description": "when the device told so first"})


class DeviceDetailRead(DeviceRead):
    """A device, and where it differs from what was deployed."""

    drift = fields.List(
        fields.Nested(DriftRead), metadata={"description": "by what it reports as `flows` in its shadow"}
    )


class DeviceCreated(DeviceRead):
    api_key = fields.String(metadata={"description": "what the device signs in with; shown once", "example": _KEY})
    provisioning_code = fields.String(
        metadata={"description": "an agent trades it for the id and a key of its own; shown once", "example": _CODE}
    )
    provisioning_expires_at = Time(metadata={"description": "until when the code must be used for the first time"})


DevicePage = page_of(DeviceRead)


class ProvisionRequest(Schema):
    provisioning_code = Text(required=True, validate=validate.Length(1, 200), metadata={"example": _CODE})
    hardware_info = _object("serial, mac, machine_id … bind the code to this hardware", _HARDWARE, required=True)
    network_info = _object("hostname, addresses", _NETWORK, load_default=dict)


class Provisioned(Schema):
    device_id = fields.UUID(metadata={"example": DEVICE_ID})
    api_key = fields.String(metadata={"description": "former keys end 10 minutes later", "example": _KEY})
    expires_at = Time(metadata={"description": "absent: the key does not end by itself"})


class DeviceStatus(Schema):
    device_id = fields.UUID(metadata={"example": DEVICE_ID})
    status = fields.String(validate=validate.OneOf(STATUSES), metadata={"example": "online"})
    connected = fields.Boolean(metadata={"description": "whether its tunnel stands now"})
    error = fields.String(allow_none=True, metadata={"description": "why it is in error", "example": None})
    last_seen_at = Time(allow_none=True)
    connected_at = Time(allow_none=True)
    agent_version = fields.String(allow_none=True, metadata={"example": "1.0.0"})
    protocol = fields.Integer(allow_none=True, metadata={"example": 2})
    gateway = fields.String(
        allow_none=True, metadata={"description": "the web process that holds the tunnel", "example": "web-1"}
    )
    flows_running = fields.Integer(allow_none=True, metadata={"description": "null: not known", "example": 2})
    shadow_sync = fields.String(metadata={"example": "in_sync"})


class ShadowUpdate(Schema):
    desired = JsonObject(metadata={"description": "merge patch; users write this one", "example": _DESIRED})
    reported = JsonObject(metadata={"description": "merge patch; the device's own", "example": _REPORTED})
    version = fields.Integer(
        strict=True, validate=validate.Range(0, 2**63 - 1), metadata={"description": "409 if it is another by now"}
    )
    client_token = Text(validate=validate.Length(1, 64), metadata={"description": "comes back in the answer"})

    @validates_schema
    def _says_something(self, data: Any, **_kwargs: Any) -> None:
        if "desired" not in data and "reported" not in data:
            raise ValidationError("One of desired and reported is required.", "desired")


class ShadowTimes(Schema):
    desired = fields.Dict(
        keys=fields.String(), metadata={"example": dict.fromkeys(("interval", "led.color"), "2026-11-22T21:51:05Z")}
    )
    reported = fields.Dict(
        keys=fields.String(), metadata={"example": dict.fromkeys(("interval", "led.color"), "2026-11-22T21:51:09Z")}
    )


class ShadowRead(Schema):
    device_id = fields.UUID(metadata={"example": DEVICE_ID})
    version = fields.Integer(metadata={"example": 7})
    desired = fields.Dict(metadata={"description": "what users want", "example": _DESIRED})
    reported = fields.Dict(metadata={"description": "what the device says", "example": _REPORTED})
    delta = fields.Dict(metadata={"description": "what of desired is not reported yet", "example": {"interval": 30}})
    metadata = fields.Nested(ShadowTimes, metadata={"description": "dotted path of a value to when it was written"})
    sync_state = fields.String(metadata={"description": "unknown, in_sync, pending or error", "example": "pending"})
    updated_at = Time()
    client_token = fields.String(metadata={"description": "as sent with the change", "example": "change-1"})
