"""Stripe's published OpenAPI (3.0) as JSON Schema, stricter than it is written: what it does not list is a fault.

The description may be a version older than the library: what the library's classes know besides is allowed.
"""

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
from stripe._object_classes import OBJECT_CLASSES

from tests.stripe_contract import forms
from tests.stripe_contract.schemas import Schema, faults, json_schema


class OpenAPI:
    """``faults*`` answer ``["invoice: lines.data.0.amount: …"]``, nothing for what is as described."""

    def __init__(self, path: Path) -> None:
        described = json.loads(path.read_text())
        self._paths = described["paths"]
        # A template's fixed words come before its parameters: /v1/invoices/create_preview is no invoice.
        self._templates = [(template, _pattern(template)) for template in sorted(self._paths, key=_parameters_last)]
        self._described = described["components"]["schemas"]
        self._components = {name: json_schema(one) for name, one in self._described.items()}
        self.kinds = {_kind(name, one): name for name, one in self._described.items() if _named(name, one)}
        for kind in sorted(self.kinds.keys() & OBJECT_CLASSES.keys()):
            module, name = OBJECT_CLASSES[kind]
            self._widen(self._components[self.kinds[kind]], getattr(importlib.import_module(module), name))
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def operation(self, method: str, path: str) -> str | None:
        """``GET /v1/invoices/{invoice}`` of a request's; None for one that Stripe does not have."""
        for template, pattern in self._templates:
            if method.lower() in self._paths[template] and pattern.fullmatch(path):
                return f"{method.upper()} {template}"
        return None

    def parameters(self, method: str, path: str) -> set[str]:
        """Names of the first level; none for a request that Stripe does not have."""
        operation = self.operation(method, path)
        if operation is None:
            return set()
        template = operation.partition(" ")[2]
        return set(forms.form_schema(self._paths[template][method.lower()])["properties"])

    def faults_of_answer(self, method: str, path: str, status: int, body: Any) -> list[str]:
        """Of a whole answer, be it an object, a list or an error."""
        operation = self.operation(method, path)
        if operation is None:
            return [f"{method} {path}: Stripe knows no such request"]
        template = operation.partition(" ")[2]
        responses = self._paths[template][method.lower()]["responses"]
        answer = responses.get(str(status), responses["default"])["content"]["application/json"]["schema"]
        name = f"{operation} {status}"
        return faults(self._validator(json_schema(answer)), body, name)

    def faults_of_request(self, method: str, path: str, parameters: list[tuple[str, str]]) -> list[str]:
        """Of the parameters, at any depth, and of what is to be expanded."""
        operation = self.operation(method, path)
        if operation is None:
            return [f"{method} {path}: Stripe knows no such request"]
        name, template = f"{operation} request", operation.partition(" ")[2]
        described = self._paths[template][method.lower()]
        given = forms.nested(parameters)
        answer = described["responses"]["200"]["content"]["application/json"]["schema"]
        lost = forms.misplaced_expansions(self._described, answer, given.get("expand", []))
        found = faults(self._validator(forms.form_schema(described)), given, name)
        return found + [f"{name}: expand: {one}" for one in lost]

    def faults(self, thing: Schema) -> list[str]:
        """Of one object, by the kind that it says it is: as events carry them."""
        kind = f"deleted {thing['object']}" if thing.get("deleted") else thing["object"]
        if kind not in self.kinds:
            return [f"{kind}: Stripe knows no such object"]
        return faults(self._validator({"$ref": f"#/components/schemas/{self.kinds[kind]}"}), thing, kind)

    def _widen(self, schema: Schema, known: type) -> None:
        """Allow the fields of a class of the library, and those of its inner classes: ``Price.Recurring``."""
        if "$ref" in schema:
            self._widen(self._components[schema["$ref"].rpartition("/")[2]], known)
        for choice in schema.get("anyOf", ()):
            self._widen(choice, known)
        if "properties" not in schema:
            return
        for name, hint in inspect.get_annotations(known).items():
            if "ClassVar" not in str(hint):
                schema["properties"].setdefault(name, True)
        for name, inner in schema["properties"].items():
            if inner is not True and isinstance(of := vars(known).get(name.title().replace("_", "")), type):
                self._widen(inner, of)

    def _validator(self, schema: Schema) -> jsonschema_rs.Validator:
        """Of some 50 ms each: many requests are answered alike, and share one."""
        name = json.dumps(schema)
        if name not in self._validators:
            components = {"components": {"schemas": self._components}} if "$ref" in name else {}
            self._validators[name] = jsonschema_rs.Draft202012Validator({**schema, **components})
        return self._validators[name]


def _named(name: str, component: Schema) -> bool:
    """Whether it is an object of its own, with a kind in ``object``."""
    kinds = component.get("properties", {}).get("object", {}).get("enum", [])
    return ("x-resourceId" in component or name.startswith("deleted_")) and len(kinds) == 1


def _kind(name: str, component: Schema) -> str:
    """``invoice``, ``deleted invoice``."""
    kind = component["properties"]["object"]["enum"][0]
    return f"deleted {kind}" if name.startswith("deleted_") else str(kind)


def _parameters_last(template: str) -> str:
    return template.replace("{", "~")


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)))
