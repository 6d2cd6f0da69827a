"""One request id, from the request through its jobs to the commands on the devices, and back."""

import re

import pytest

from tests.e2e.conftest import User, fleet
from tests.platform import Platform

pytestmark = pytest.mark.xdist_group("platform")


def test_a_request_id_follows_a_deployment_into_jobs_and_commands(user: User, platform: Platform) -> None:
    trace = f"trace-{user.org_id}"
    user.http.headers["X-Request-Id"] = trace
    with fleet(user, 2):
        user.wait(user.deploy(user.flow()), "succeeded")
    web = (platform.folder / "web0.log").read_text()
    worker = (platform.folder / "worker.log").read_text()
    commands = [line for line in web.splitlines() if " command " in line and trace in line]
    assert len(commands) == 2
    assert all("action=deploy_flow outcome=ok" in line for line in commands)
    assert re.search(rf"deployment.*request_id={trace}.*status=succeeded|status=succeeded.*request_id={trace}", worker)
