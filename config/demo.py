"""The demo: an organization with ten simulated devices, a flow that is rolled out to them, and a rule that fires when
one of them gets too hot.

It uses the platform as anybody does, by its REST API, and leaves what it made for the person at the terminal.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from config.launch import host
from config.launch.console import Terminal

EMAIL = "demo@example.com"
ROLE = "admin"  # of the key that is printed: it may subscribe
DEVICES = 10
TAG = "demo"
LATENCY_MS = 300  # long enough to be seen
TELEMETRY_SECONDS = 5
HOT_DEVICE = "demo-003"
HEAT = "20:120:900"  # from second 20 on for two minutes, again every quarter of an hour
ONLINE_SECONDS = 60.0
FINAL = {"succeeded", "failed", "canceled", "rolled_back", "rollback_failed"}
OVER = {"succeeded", "failed", "timed_out", "rejected", "canceled", "removed", "superseded", "already_installed"}


class DemoFailed(RuntimeError):
    """The demo cannot go on; the message says why."""


class _Ended(Exception):
    """The platform is being stopped."""


FIVE_MINUTES_AGO = "$(date -u -d '5 minutes ago' +%FT%TZ)"
HOT_RULE = {
    "name": "Device too hot",
    "type": "metric",
    "metric": "temperature",
    "condition": "gt",
    "threshold": 80,
    "for_seconds": 15,
    "severity": "warning",
    "target": {"tags": [TAG]},
}

SUBSCRIPTION = {"plan": "pro", "payment_method_id": "pm_card_visa"}


def sample_flow(interval: float) -> dict[str, Any]:
    """A temperature watch: every ``interval`` seconds a measured value, in Fahrenheit, sorted into hot and normal."""
    nodes = [
        {
            "id": "sensor",
            "type": "inject",
            "name": "temperature sensor",
            "config": {"interval": interval, "expression": "20 + count % 15"},
            "wires": [["convert"]],
        },
        {
            "id": "convert",
            "type": "function",
            "name": "to Fahrenheit",
            "config": {"expression": "round(payload * 1.8 + 32, 1)"},
            "wires": [["limit"]],
        },
        {
            "id": "limit",
            "type": "switch",
            "name": "too hot?",
            "config": {"property": "payload", "rules": [{"op": "gt", "value": 86}, {"op": "else"}]},
            "wires": [["hot"], ["normal"]],
        },
        {"id": "hot", "type": "debug", "name": "hot"},
        {"id": "normal", "type": "debug", "name": "normal"},
    ]
    return {"nodes": nodes, "connections": []}


@dataclass
class State:
    """What the demo made, kept between starts in a private file."""

    path: Path
    values: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, data_dir: Path) -> "State":
        path = data_dir / "demo.json"
        return cls(path, json.loads(path.read_text()) if path.exists() else {})

    def keep(self, **values: Any) -> None:
        self.values.update(values)
        host.write_private(self.path, json.dumps(self.values, indent=1))

    def forget(self) -> None:
        self.values.clear()
        self.path.unlink(missing_ok=True)


@dataclass
class Demo:
    """``run`` plays it in a thread of its own; whatever goes wrong is said in one line and harms nothing else.

    ``start_fleet`` keeps ``python -m agent`` running with the arguments and environment that it is given.
    ``receive_webhooks`` starts a receiver that knows the secret that it is given, and says where it listens.
    ``takes_test_cards``: there is somebody to pay, with cards that cost nothing.
    """

    local_url: str
    public_url: str
    data_dir: Path
    terminal: Terminal
    start_fleet: Callable[[list[str], dict[str, str]], None]
    receive_webhooks: Callable[[str], str]
    takes_test_cards: bool
    stopping: threading.Event

    def __post_init__(self) -> None:
        self._state = State.read(self.data_dir)
        # Connecting is tried again: a web process that was killed is back within seconds. Never through a proxy.
        transport = httpx.HTTPTransport(retries=5)
        self._client = httpx.Client(base_url=f"{self.local_url}/api/v1", transport=transport, timeout=15)

    def run(self) -> None:
        try:
            with self._client:
                self._play()
        except _Ended:
            return
        except Exception as error:
            if not self.stopping.is_set():
                reason = str(error) if isinstance(error, DemoFailed) else f"{type(error).__name__}: {error}"
                self.terminal.say(f"the demo stopped, the platform runs on: {reason}")

    def _play(self) -> None:
        self._sign_up()
        self._connect_fleet()
        if not self._state.values.get("rolled_out"):
            self._await_devices()
            self._roll_out()
            self._publish(interval=1)
            self._state.keep(rolled_out=True)
        self._watch_over()
        self._show_the_way()

    def _sign_up(self) -> None:
        """Have an API key of the demo organization; a database that does not know it any more gets a new one."""
        key = self._state.values.get("api_key")
        if key and self._state.values.get("role") == ROLE:
            self._client.headers["X-API-Key"] = key
            if self._client.get("/devices", params={"limit": 1}).status_code != httpx.codes.UNAUTHORIZED:
                return
            self._state.forget()
            del self._client.headers["X-API-Key"]
        bearer = {"Authorization": f"Bearer {self._access_token()}"}
        made = self._call("POST", "/auth/api-keys", {"name": "demo", "role": ROLE}, headers=bearer)
        self._state.keep(api_key=made["key"], role=ROLE)
        self._client.headers["X-API-Key"] = made["key"]

    def _access_token(self) -> str:
        credentials = {"email": EMAIL, "password": host.kept_secret(self.data_dir, "demo", size=8)}
        answer = self._client.post("/auth/login", json=credentials)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            names = {"name": "Demo", "organization_name": "Demo"}
            return str(self._call("POST", "/auth/register", {**credentials, **names})["access_token"])
        return str(_content(answer)["access_token"])

    def _connect_fleet(self) -> None:
        arguments = ["simulate", "--url", self.local_url, "--devices", str(DEVICES), "--prefix", "demo"]
        arguments += ["--tags", TAG, "--latency-ms", str(LATENCY_MS)]
        arguments += ["--telemetry-interval", str(TELEMETRY_SECONDS), "--overheat", f"{HOT_DEVICE}:{HEAT}"]
        arguments += ["--state-file", str(self.data_dir / "demo-fleet.json")]
        self.start_fleet(arguments, {"EDGEFLOW_API_KEY": self._state.values["api_key"]})

    def _await_devices(self) -> None:
        self.terminal.say(f"demo: {DEVICES} simulated devices connect")
        for _ in range(int(ONLINE_SECONDS / 0.25)):
            if self._call("GET", f"/devices?status=online&tag={TAG}&limit=1")["total"] >= DEVICES:
                return
            self._pause(0.25)
        raise DemoFailed(f"the simulated devices were not online within {ONLINE_SECONDS:.0f} s")

    def _roll_out(self) -> None:
        if "flow_id" not in self._state.values:
            flow = {"name": "Temperature watch", "description": "Tells hot from normal.", "definition": sample_flow(2)}
            self._state.keep(flow_id=self._call("POST", "/flows", flow)["id"])
        if "deployment_id" not in self._state.values:
            self._call("POST", f"/flows/{self._state.values['flow_id']}/publish")
            self._state.keep(deployment_id=self._call("POST", "/deployments", self._deployment())["id"])
        self._follow(self._state.values["deployment_id"])

    def _publish(self, interval: float) -> None:
        """Publish a version that no device has yet, so that the printed command has something to do."""
        path = f"/flows/{self._state.values['flow_id']}"
        self._call("PUT", path, {"definition": sample_flow(interval)})
        self._call("POST", f"{path}/publish")

    def _deployment(self) -> dict[str, Any]:
        target = {"tags": [TAG]}
        return {
            "flow_id": self._state.values["flow_id"],
            "target": target,
            "strategy": {"max_in_flight": 3},
            "start": True,
        }

    def _follow(self, deployment_id: str) -> None:
        """Show a rollout's progress until it is over."""
        self.terminal.say("demo: the flow is deployed to them")
        with self._bar() as show:
            while True:
                deployment = self._call("GET", f"/deployments/{deployment_id}")
                counts = {state: n for state, n in deployment["progress"].items() if isinstance(n, int)}
                show(sum(n for state, n in counts.items() if state in OVER), deployment["status"])
                if deployment["status"] in FINAL or deployment["status"] == "paused":
                    break
                self._pause(0.25)
        if deployment["status"] != "succeeded":
            raise DemoFailed(f"the deployment is {deployment['status']}: {deployment.get('reason')}")
        self.terminal.say(f"demo: the flow runs on {DEVICES} devices")

    @contextmanager
    def _bar(self) -> Iterator[Callable[[int, str], None]]:
        """A function that shows how many devices are done: a bar on a terminal, else a line per change."""
        if not self.terminal.interactive:
            seen: list[tuple[int, str]] = []

            def tell(done: int, status: str) -> None:
                if seen != [(done, status)]:
                    seen[:] = [(done, status)]
                    self.terminal.say(f"demo: deployment {status}, {done} of {DEVICES} devices")

            yield tell
            return
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with self.terminal.live() as console, Progress(*columns, console=console) as progress:
            task = progress.add_task("deployment", total=DEVICES)
            yield lambda done, status: progress.update(task, completed=done, description=f"deployment {status}")

    def _watch_over(self) -> None:
        """Have a rule that tells of heat, by mail and to a receiver of our own, which may listen elsewhere by now."""
        secret = host.kept_secret(self.data_dir, "webhook")
        url, rule_id = self.receive_webhooks(secret), self._state.values.get("alert_id")
        channels = [{"type": "email", "to": [EMAIL]}, {"type": "webhook", "url": url, "secret": secret}]
        if rule_id is None:
            answer = self._client.post("/alerts", json={**HOT_RULE, "channels": channels})
            if answer.status_code != httpx.codes.NOT_IMPLEMENTED:
                self._state.keep(alert_id=_content(answer)["id"], webhook_url=url)
        elif self._state.values["webhook_url"] != url:
            answer = self._client.put(f"/alerts/{rule_id}", json={"channels": channels})
            if answer.status_code != httpx.codes.NOT_FOUND:  # else somebody did not want it any more
                _content(answer)
            self._state.keep(webhook_url=url)

    def _show_the_way(self) -> None:
        url = f"{self.public_url}/api/v1"
        key = f"-H 'X-API-Key: {self._state.values['api_key']}'"
        post, sent = "curl -s -X POST", f"{key} -H 'Content-Type: application/json' -d"
        deploy = f"{post} {url}/deployments {sent} '{json.dumps(self._deployment())}'"
        subscribe = f"{post} {url}/billing/subscription {sent} '{json.dumps(SUBSCRIPTION)}'"
        lines = [
            "",
            f"  API         {url}",
            f"  Swagger UI  {url}/docs",
            f"  Sign in     {EMAIL}  {host.kept_secret(self.data_dir, 'demo')}",
            "",
            "  Deploy the flow's newest version to the devices:",
            "",
            f"  {deploy}",
            "",
            "  What they have measured in the last minutes, as a series for each device:",
            "",
            f'  curl -s "{url}/metrics?name=temperature&group_by=device&step=5&from={FIVE_MINUTES_AGO}" {key}',
            "",
            f"  Within a minute {HOT_DEVICE} gets too hot. Its alert is told below, by mail and by webhook:",
            "",
            f"  curl -s {url}/alerts {key}",
            "",
        ]
        if self.takes_test_cards:
            lines += ["  Subscribe, and pay with a test card to the Stripe of this machine:", "", f"  {subscribe}", ""]
        self.terminal.block("\n".join(lines))

    def _call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        if self.stopping.is_set():
            raise _Ended
        return _content(self._client.request(method, path, json=body, headers=headers))

    def _pause(self, seconds: float) -> None:
        if self.stopping.wait(seconds):
            raise _Ended


def _content(answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json()
    request = answer.request
    raise DemoFailed(f"{request.method} {request.url.path} answered {answer.status_code}: {answer.text.strip()[:300]}")
